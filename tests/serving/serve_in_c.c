/* Answers requests from a SavedModel with TensorFlow's C API: no Python, as in TF Serving.
 *
 *     serve_in_c SAVED_MODEL REQUESTS NUM_CALLS
 *
 * Loads the graph tagged `serve` and runs each request of the file NUM_CALLS times. Prints
 * a line for each: `ok MILLISECONDS VALUE...` with the median time and the first output, or
 * `error MESSAGE`. tests/serving/in_c.py writes the requests, little-endian:
 *
 *     uint32 number of inputs, each:
 *         text operation, uint32 index, uint32 TF_DataType, uint32 rank, int64 sizes,
 *         uint64 number of bytes, bytes; for strings instead each element as text
 *     text operation, uint32 index of the output (float)
 *
 * where a text is uint64 number of bytes, bytes.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { MAX_INPUTS = 16, MAX_RANK = 8 };

static void fail(const char *what) {
  fprintf(stderr, "%s\n", what);
  exit(2);
}

static void read_bytes(FILE *file, void *to, size_t size) {
  if (fread(to, 1, size, file) != size) fail("the requests end too early");
}

static uint32_t read_u32(FILE *file) {
  uint32_t value;
  read_bytes(file, &value, sizeof value);
  return value;
}

static char *read_text(FILE *file, uint64_t *size) {
  read_bytes(file, size, sizeof *size);
  char *text = malloc(*size + 1);
  if (!text) fail("out of memory");
  read_bytes(file, text, *size);
  text[*size] = 0;
  return text;
}

static TF_Output read_place(FILE *file, TF_Graph *graph) {
  uint64_t size;
  char *name = read_text(file, &size);
  TF_Output place = {TF_GraphOperationByName(graph, name), (int)read_u32(file)};
  if (!place.oper) fail(name);
  free(name);
  return place;
}

static TF_Tensor *read_tensor(FILE *file) {
  TF_DataType dtype = (TF_DataType)read_u32(file);
  uint32_t rank = read_u32(file);
  int64_t sizes[MAX_RANK], num_elements = 1;
  if (rank > MAX_RANK) fail("too many axes");
  read_bytes(file, sizes, rank * sizeof *sizes);
  for (uint32_t i = 0; i < rank; ++i) num_elements *= sizes[i];
  if (dtype != TF_STRING) {
    uint64_t size;
    char *bytes = read_text(file, &size);
    TF_Tensor *tensor = TF_AllocateTensor(dtype, sizes, (int)rank, size);
    memcpy(TF_TensorData(tensor), bytes, size);
    free(bytes);
    return tensor;
  }
  TF_Tensor *tensor = TF_AllocateTensor(dtype, sizes, (int)rank,
                                        (size_t)num_elements * sizeof(TF_TString));
  TF_TString *strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < num_elements; ++i) {
    uint64_t size;
    char *bytes = read_text(file, &size);
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], bytes, size);
    free(bytes);
  }
  return tensor;
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(int argc, char **argv) {
  if (argc != 4) fail("usage: serve_in_c SAVED_MODEL REQUESTS NUM_CALLS");
  int num_calls = atoi(argv[3]);
  if (num_calls < 1) fail("NUM_CALLS must be 1 or more");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  const char *tags[] = {"serve"};
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1,
                                                     graph, NULL, status);
  if (TF_GetCode(status) != TF_OK) fail(TF_Message(status));

  FILE *file = fopen(argv[2], "rb");
  if (!file) fail("the requests cannot be opened");
  double *times = malloc((size_t)num_calls * sizeof *times);
  for (int first; (first = fgetc(file)) != EOF;) {
    ungetc(first, file);
    uint32_t num_inputs = read_u32(file);
    TF_Output places[MAX_INPUTS];
    TF_Tensor *tensors[MAX_INPUTS];
    if (num_inputs > MAX_INPUTS) fail("too many inputs");
    for (uint32_t i = 0; i < num_inputs; ++i) {
      places[i] = read_place(file, graph);
      tensors[i] = read_tensor(file);
    }
    TF_Output output = read_place(file, graph);
    TF_Tensor *answer = NULL;
    for (int call = 0; call < num_calls; ++call) {
      if (answer) TF_DeleteTensor(answer);
      answer = NULL;
      double start = milliseconds();
      TF_SessionRun(session, NULL, places, tensors, (int)num_inputs, &output, &answer, 1,
                    NULL, 0, NULL, status);
      times[call] = milliseconds() - start;
    }
    if (TF_GetCode(status) != TF_OK) {
      char message[2000];
      snprintf(message, sizeof message, "%s", TF_Message(status));
      for (char *c = message; *c; ++c)
        if (*c == '\n') *c = ' ';
      printf("error %s\n", message);
    } else {
      qsort(times, (size_t)num_calls, sizeof *times, compare);
      printf("ok %.4f", times[num_calls / 2]);
      const float *values = TF_TensorData(answer);
      for (size_t i = 0; i < TF_TensorByteSize(answer) / sizeof *values; ++i)
        printf(" %.9g", values[i]);
      printf("\n");
      TF_DeleteTensor(answer);
    }
    for (uint32_t i = 0; i < num_inputs; ++i) TF_DeleteTensor(tensors[i]);
  }
  free(times);
  fclose(file);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
