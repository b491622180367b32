// An input of the page: a canvas to draw on, a file to drop, or a text to type; and a
// brush over the picture of the input that hides what is under it.
const spec = props.spec;
const find = (name) => element.querySelector("." + name);
const [stage, picture, drawing, brush] = ["pad-stage", "pad-picture", "pad-drawing", "pad-brush"].map(find);
const [hint, error, note, file, text, size] =
  ["pad-hint", "pad-error", "pad-note", "pad-file", "pad-text", "pad-size"].map(find);
const [draw, hide, paper, hideAll] = ["pad-draw", "pad-hide", "pad-paper", "pad-hide-all"].map(find);
const SIDE = 384;
const PATIENCE = 2000; // milliseconds between questions whether the server still runs
const STOPPED = "The explorer has stopped. Start it again, and reload this page.";

let serial = 0; // of the input
let count = 0; // of the messages
let input = null; // what the server does not have yet
let isEmpty = true;
let isBrushed = false;
let mode = spec.canvas ? "draw" : "hide";
let last = null;

function reset(canvas, color) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (color) {
    context.fillStyle = color;
    context.fillRect(0, 0, canvas.width, canvas.height);
  }
}

const base64 = (url) => url.slice(url.indexOf(",") + 1);

function send(kind, name, content) {
  if (kind) {
    // Unique, so that a server that was restarted does not take it for an older input.
    serial = Date.now() + Math.random();
    input = { kind: kind, name: name || "", content: content || "" };
    isEmpty = kind === "none";
    hideAll.checked = false;
    error.textContent = note.textContent = "";
    if (isBrushed) {
      isBrushed = false;
      reset(brush);
    }
  }
  count += 1;
  stage.dataset.busy = "true";
  show();
  props.value = message();
  trigger("submit");
  const asked = count;
  setTimeout(() => askServer(asked), PATIENCE);
}

// Gradio does not tell the page that no answer will come.
async function askServer(asked) {
  if (asked !== count || !stage.dataset.busy) return;
  try {
    await fetch("/theme.css", { cache: "no-store" });
    setTimeout(() => askServer(asked), PATIENCE);
  } catch {
    delete stage.dataset.busy;
    error.textContent = STOPPED;
    show();
  }
}

function message() {
  return JSON.stringify({
    serial: serial,
    count: count,
    input: input,
    brush: isBrushed ? base64(brush.toDataURL("image/png")) : null,
    hidden: hideAll.checked,
  });
}

function show() {
  const isDrawing = mode === "draw";
  element.querySelectorAll(".pad-mode").forEach((button) => {
    button.setAttribute("aria-pressed", String(button === (isDrawing ? draw : hide)));
  });
  draw.hidden = hide.hidden = paper.hidden = !spec.canvas;
  find("pad-brush-name").textContent = spec.canvas ? "brush" : "brush to hide";
  drawing.hidden = !isDrawing;
  picture.hidden = brush.hidden = isDrawing || !props.picture;
  const words = spec.takes_text ? "Type below, or drop a file" : "Drop a file";
  hint.textContent = isDrawing ? "Draw here, or drop an image" : words;
  hint.hidden = !isEmpty;
  stage.classList.toggle("pad-tall", !isEmpty || isDrawing);
  stage.classList.toggle("pad-hidden", hideAll.checked);
  text.hidden = !spec.takes_text;
  error.hidden = !error.textContent;
  note.hidden = !note.textContent;
}

function setMode(name) {
  mode = name;
  show();
}

function clearDrawing() {
  reset(drawing, paper.value === "white" ? "#fff" : "#000");
}

function place(event, canvas) {
  const box = canvas.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * canvas.width;
  const y = ((event.clientY - box.top) / box.height) * canvas.height;
  return [x, y];
}

function stroke(canvas, color, from, to) {
  const context = canvas.getContext("2d");
  context.strokeStyle = color;
  context.lineWidth = (Number(size.value) / 100) * canvas.width;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(from[0], from[1]);
  context.lineTo(to[0] + 0.01, to[1]);
  context.stroke();
}

function paint(canvas, color, done) {
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    last = place(event, canvas);
    stroke(canvas, color(), last, last);
    hint.hidden = true;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const next = place(event, canvas);
    stroke(canvas, color(), last, next);
    last = next;
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, () => {
      if (last === null) return;
      last = null;
      done();
    });
  }
}

function take(chosen) {
  if (!chosen) return;
  if (chosen.size > spec.max_bytes) {
    error.textContent =
      "A file must have at most " + spec.max_bytes + " bytes. Received: " + chosen.size +
      ". Use a smaller file, or start the explorer with a larger --max-mb.";
    show();
    return;
  }
  const reader = new FileReader();
  reader.onload = () => {
    clearDrawing();
    mode = "hide";
    send("file", chosen.name, base64(reader.result));
  };
  reader.onerror = () => {
    error.textContent = "The file could not be read: " + reader.error.message;
    show();
  };
  reader.readAsDataURL(chosen);
}

function setSize(ratio) {
  brush.width = SIDE;
  brush.height = Math.max(1, Math.round(SIDE * ratio));
}

if (spec.canvas) {
  const [height, width] = spec.canvas;
  const scale = SIDE / Math.max(height, width);
  drawing.width = Math.max(1, Math.round(width * scale));
  drawing.height = Math.max(1, Math.round(height * scale));
}
clearDrawing();
file.accept = spec.suffixes.join(",");
paint(drawing, () => (paper.value === "white" ? "#000" : "#fff"), () =>
  send("drawing", "", base64(drawing.toDataURL("image/png")))
);
paint(brush, () => "#ff2d78", () => {
  isBrushed = true;
  send();
});
draw.addEventListener("click", () => setMode("draw"));
hide.addEventListener("click", () => setMode("hide"));
paper.addEventListener("change", () => {
  clearDrawing();
  send("none");
});
find("pad-show").addEventListener("click", () => {
  isBrushed = hideAll.checked = false;
  reset(brush);
  send();
});
find("pad-clear").addEventListener("click", () => {
  clearDrawing();
  text.value = "";
  if (spec.canvas) mode = "draw";
  send("none");
});
hideAll.addEventListener("change", () => send());
file.addEventListener("change", () => {
  take(file.files[0]);
  file.value = ""; // so that the same file can be chosen again
});
text.addEventListener("change", () => send(text.value.trim() ? "text" : "none", "", text.value));
stage.addEventListener("dragover", (event) => event.preventDefault());
stage.addEventListener("drop", (event) => {
  event.preventDefault();
  take(event.dataTransfer.files[0]);
});
picture.addEventListener("load", () => {
  const ratio = picture.naturalHeight / picture.naturalWidth;
  if (!isBrushed) setSize(ratio);
  show();
});

watch(["picture", "reply"], () => {
  const reply = JSON.parse(props.reply || "{}");
  if (reply.count !== count) return; // of an older message
  delete stage.dataset.busy;
  if (input) {
    input = null; // which need not be sent again with changes of other inputs
    props.value = message();
  }
  error.textContent = reply.error || "";
  note.textContent = reply.note || "";
  if (reply.error) {
    isEmpty = true;
    hideAll.checked = false;
    if (spec.canvas) mode = "draw";
  }
  if (props.picture && picture.src !== props.picture) picture.src = props.picture;
  if (!props.picture) picture.removeAttribute("src");
  show();
});
show();
