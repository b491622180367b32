"""The explorer in a subprocess, and a browser on its page, for tests and pictures."""

import base64
import contextlib
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

ROOT = Path(__file__).parents[1]
_SECONDS = 90  # for the first answer, which compiles the model
# After two frames, all elements are those of the answer.
_TWO_FRAMES = """
    return new Promise((done) =>
        requestAnimationFrame(() => requestAnimationFrame(() => done(true))));
"""
_PROGRAMS = ("chromium", "chromedriver")


@contextlib.contextmanager
def explorer(model, *options):
    """Context of a running explorer, whose URL is yielded."""
    words = ["explore", str(model), "--port", "0", "--no-browser", *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_perceiver", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines, errors = queue.Queue(), []

    def read(stream, keep):
        for line in stream:
            keep(line)
        keep(None)

    streams = ((process.stdout, lines.put), (process.stderr, errors.append))
    readers = [threading.Thread(target=read, args=each) for each in streams]
    for reader in readers:
        reader.start()
    try:
        url = lines.get(timeout=_SECONDS)
        if url is None:
            raise RuntimeError("".join(filter(None, errors)))
        yield url.strip()
    finally:
        process.send_signal(signal.SIGINT)
        try:
            status = process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)  # which shows what it waits for
            process.wait()
            status = None
        for reader, (stream, _) in zip(readers, streams, strict=True):
            reader.join()
            stream.close()
    if status != 0 or "stopped\n" not in errors:
        raise RuntimeError("".join(filter(None, errors)))


@contextlib.contextmanager
def chromium(url, width=1280, height=1400, is_dark=False):
    """Context of the driver of headless Chromium, which shows a URL."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise RuntimeError(f"{missing} missing: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
    ):
        options.add_argument(argument)
    options.add_argument("--disable-dev-shm-usage")
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        if width < 500:  # narrower than a window of Chromium can be
            metrics = {"width": width, "height": height, "deviceScaleFactor": 1}
            command = "Emulation.setDeviceMetricsOverride"
            driver.execute_cdp_cmd(command, {**metrics, "mobile": True})
        if is_dark:
            features = [{"name": "prefers-color-scheme", "value": "dark"}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get(url)
        yield driver
    finally:
        driver.quit()


@contextlib.contextmanager
def browser(url, **options):
    """Context of a `Page` in headless Chromium, see `chromium`."""
    with chromium(url, **options) as driver:
        page = Page(driver)
        page.wait(lambda: page.all(".pad-stage"))
        yield page


class Page:
    """What a user does on the page, and what it shows."""

    def __init__(self, driver):
        self.driver = driver

    def wait(self, condition, seconds=_SECONDS):
        """Waits until a callable is true, and returns its result."""

        def holds(_):
            with contextlib.suppress(Exception):  # elements are replaced meanwhile
                return condition()

        return WebDriverWait(self.driver, seconds, 0.1).until(holds)

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def pad(self, number, name):
        """Returns an element of the input of a modality."""
        (found,) = self.all(f".pad-{number} .{name}")
        return found

    def answer(self):
        return self._html("answer")

    def attention(self):
        return self._html("attention")

    def _html(self, name):
        # Without the status of the component, which contains times.
        script = "return document.querySelector(arguments[0]).innerHTML"
        return self.driver.execute_script(script, f"#{name} div[id^=html-]")

    def error(self, number=0):
        return self.pad(number, "pad-error").text

    def changed(self, action):
        """Does something to an input, and waits for the answer."""
        action()
        self.wait(lambda: self.all("[data-busy]") == [])
        self.wait(lambda: self.driver.execute_script(_TWO_FRAMES))

    def sliding(self, name, value):
        """Sets a slider, and waits until the pictures have changed."""
        before = self.attention()
        self.slide(name, value)
        self.wait(lambda: self.attention() != before)

    def drag(self, element, *places):
        """Drags the mouse over places, in shares of the sides of an element."""
        self.driver.execute_script("arguments[0].scrollIntoView()", element)
        size = element.size
        points = [
            ((x - 0.5) * size["width"], (y - 0.5) * size["height"]) for x, y in places
        ]
        actions = ActionChains(self.driver, duration=50)
        actions.move_to_element_with_offset(element, *map(int, points[0]))
        actions.click_and_hold()
        for x, y in points[1:]:
            actions.move_to_element_with_offset(element, int(x), int(y))
        actions.release().perform()

    def drop(self, number, name, content):
        """Drops a file on the input of a modality."""
        script = """
            const bytes = Uint8Array.from(atob(arguments[2]), (c) => c.charCodeAt(0));
            const transfer = new DataTransfer();
            transfer.items.add(new File([bytes], arguments[1]));
            const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
            arguments[0].dispatchEvent(new DragEvent("drop", options));
        """
        stage = self.pad(number, "pad-stage")
        encoded = base64.b64encode(content).decode()
        self.driver.execute_script(script, stage, name, encoded)

    def bars(self):
        """Returns a dict from class names to the percents of their bars."""
        rows = self.all("#answer table.answer tr")
        return {
            row.find_element(By.TAG_NAME, "th").text: [
                float(span.text.removesuffix(" %"))
                for span in row.find_elements(By.CSS_SELECTOR, ".percent span")
            ]
            for row in rows
        }

    def slide(self, name, value):
        """Sets a slider."""
        (field,) = self.all(f"#{name} input[type=number]")
        field.click()
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(str(value), Keys.TAB)

    def log(self):
        """Returns the messages of the browser that are errors."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] == "SEVERE"
        ]

    def picture(self, path):
        """Saves what the window shows."""
        self.driver.save_screenshot(str(path))
