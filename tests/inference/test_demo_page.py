"""The demo's page: what it may load, and what it shows when digits are drawn with the mouse or a finger in a browser.

The browser has a single test, because a trained run, the command and the browser take seconds each. The test writes
build/demo.png.
"""

import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.interaction import POINTER_TOUCH
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from mnist_amp.__main__ import main
from mnist_amp.inference.demo_page import PAGE, security_headers
from mnist_amp.inference.pixel_network import DTYPES
from strokes import STROKES, Stroke
from tests.browser import start_browser
from tests.conftest import ROOT, started

SCREENSHOT = ROOT / "build" / "demo.png"
QUICK = ("--trainer.max_epochs=2", "--trainer.precision=32-true", "--data.batch_size=128", "--optimizer.lr=0.003")
WINDOW = (1060, 720, "light")
EMPTY = ["\u2013", *[""] * 10, "no ink"]  # texts of a column: the guess, ten probabilities, the time


def test_the_page_names_no_other_address() -> None:
    assert re.findall(r"https?:|//\w+\.|@import|url\(|src=", PAGE) == []


def test_security_headers() -> None:
    assert security_headers("<style>a</style><script>b</script>") == {
        "Content-Security-Policy": "default-src 'none'; "
        "script-src 'sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0='; "
        "style-src 'sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs='; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    browser = start_browser(tmp_path / "browser")
    yield browser
    browser.quit()


@pytest.fixture
def command(browser: webdriver.Chrome, tmp_path: Path, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """Train a run that reads digits, and start the demo of it, but only if there is a browser."""
    with pytest.MonkeyPatch.context() as here:
        here.chdir(tmp_path)
        main(["fit", f"--data.data_dir={data_dir}", *QUICK])
    with started("demo", "--port=0", cwd=tmp_path) as process:
        yield process


class Page:
    """The page, as a person sees and uses it."""

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        self.resize(*WINDOW)
        browser.get(url)
        self.eventually(lambda: set(self.columns()) == set(DTYPES))
        self.mouse = ActionChains(browser, duration=5)

    def resize(self, width: int, height: int, scheme: str) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        self.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def find(self, selector: str) -> WebElement:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def eventually(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, self.columns()
            time.sleep(0.01)

    def columns(self) -> dict[str, list[str]]:
        """Return the texts of each visible column: the guess, ten probabilities, the time."""
        script = """return Object.fromEntries([...document.querySelectorAll(".reading:not([hidden])")].map((column) =>
            [column.querySelector("h2").textContent,
             [".guess", "li span:last-child", ".time"].flatMap((selector) =>
                 [...column.querySelectorAll(selector)].map((found) => found.textContent))]))"""
        shown: dict[str, list[str]] = self.browser.execute_script(script)
        return shown

    def guesses(self) -> set[str]:
        return {shown[0] for shown in self.columns().values()}

    def ink_seen(self) -> int:
        """Return the sum of the levels of the 28 x 28 pixels that the page shows as the model's input."""
        script = """const canvas = document.getElementById("seen");
            return canvas.getContext("2d").getImageData(0, 0, 28, 28).data
                .reduce((sum, level, place) => sum + (place % 4 === 0 ? level : 0), 0)"""
        return int(self.browser.execute_script(script))

    def draw(self, stroke: Stroke, *, lift: bool = True) -> None:
        self.mouse.w3c_actions.pointer_action.move_to_location(*self.on_drawing(stroke[:1])[0]).pointer_down()
        self.continue_drawing(stroke[1:], lift=lift)

    def continue_drawing(self, stroke: Stroke, *, lift: bool = True) -> None:
        for x, y in self.on_drawing(stroke):
            self.mouse.w3c_actions.pointer_action.move_to_location(x, y)
        if lift:
            self.mouse.w3c_actions.pointer_action.pointer_up()
        self.mouse.perform()

    def draw_with_a_finger(self, stroke: Stroke) -> None:
        actions = ActionBuilder(self.browser, PointerInput(POINTER_TOUCH, "finger"), duration=5)
        start, *others = self.on_drawing(stroke)
        actions.pointer_action.move_to_location(*start).pointer_down()
        for x, y in others:
            actions.pointer_action.move_to_location(x, y)
        actions.pointer_action.pointer_up()
        actions.perform()

    def on_drawing(self, stroke: Stroke) -> list[tuple[int, int]]:
        """Return the positions in the window of points in the drawing's unit square."""
        box = self.find("#drawing").rect
        return [(round(box["x"] + x * box["width"]), round(box["y"] + y * box["height"])) for x, y in stroke]


def test_page(browser: webdriver.Chrome, command: subprocess.Popen[str]) -> None:
    assert command.stdout is not None
    url = next(line.split()[1] for line in command.stdout if line.startswith("page "))
    page = Page(browser, url)
    assert page.find("#about").text.startswith("lightning_logs/version_0/checkpoints/best.ckpt (after 2 epochs) · 9")
    shows_a_one_and_clears_it(page)
    shows_a_zero_drawn_with_a_finger(page)
    notes_a_drawing_that_is_no_digit(page)
    shows_a_seven_as_it_is_drawn(page)
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.browser.save_screenshot(str(SCREENSHOT))
    hides_a_precision_that_is_not_chosen(page)
    fits_a_phone(page)
    sent_requests_to_its_own_server_only(page, url)
    shows_that_the_server_has_stopped(page, command)


def shows_a_one_and_clears_it(page: Page) -> None:
    for clear in (page.find("#clear").click, lambda: page.find("body").send_keys(Keys.ESCAPE)):
        assert page.columns() == dict.fromkeys(DTYPES, EMPTY)
        assert page.ink_seen() == 0
        (stroke,) = STROKES[1]
        page.draw(stroke)
        page.eventually(lambda: page.guesses() == {"1"})
        assert page.ink_seen() > 20 * 255
        clear()


def shows_a_zero_drawn_with_a_finger(page: Page) -> None:
    (stroke,) = STROKES[0]
    page.draw_with_a_finger(stroke)
    page.eventually(lambda: page.guesses() == {"0"})
    page.find("#clear").click()


def notes_a_drawing_that_is_no_digit(page: Page) -> None:
    note = page.find("#unlike")
    assert not note.is_displayed()
    for place in (0.3, 0.5, 0.7):
        page.draw([(place, 0.2), (place, 0.8)])
        page.draw([(0.2, place), (0.8, place)])
    page.eventually(note.is_displayed)
    assert re.fullmatch(
        r"Unlike the training images \(distance \d\.\d\d, at most 1 is like them\): it may be none of the classes\.",
        note.text,
    )
    page.find("#clear").click()
    page.eventually(lambda: not note.is_displayed())


def shows_a_seven_as_it_is_drawn(page: Page) -> None:
    (bar, (start, *others)), seen = STROKES[7], [EMPTY[:-1]]
    page.draw(bar)
    page.draw([start], lift=False)
    for point in others:
        page.continue_drawing([point], lift=False)
        page.eventually(lambda: page.columns()["float32"][:-1] not in seen)
        seen.append(page.columns()["float32"][:-1])
    page.continue_drawing([])
    page.eventually(lambda: page.guesses() == {"7"})
    for guess, *percentages, seconds in page.columns().values():
        assert guess == "7"
        assert abs(sum(float(share.removesuffix("%")) for share in percentages) - 100) < 0.5
        assert float(percentages[7].removesuffix("%")) > 90
        assert float(seconds.split()[0]) > 0
        assert seconds.split()[1] in ("µs", "ms")
    filled, full = (page.find(f"[data-precision=float32] .best {part}").size["width"] for part in ("i", ".bar"))
    assert filled > 0.9 * full
    announced = "float32 reads 7, float16 reads 7, bfloat16 reads 7"
    page.eventually(lambda: page.find("#summary").get_attribute("textContent") == announced)


def hides_a_precision_that_is_not_chosen(page: Page) -> None:
    page.find("input[value=float16]").click()
    page.eventually(lambda: set(page.columns()) == {"float32", "bfloat16"})
    page.find("input[value=float16]").click()
    page.eventually(lambda: page.guesses() == {"7"} and set(page.columns()) == set(DTYPES))


def fits_a_phone(page: Page) -> None:
    page.resize(360, 740, "dark")
    widths = page.browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert widths[0] == widths[1]
    page.resize(*WINDOW)


def sent_requests_to_its_own_server_only(page: Page, url: str) -> None:
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name.split('?')[0])"
    assert set(page.browser.execute_script(script)) == {f"{url}about", f"{url}read"}
    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def shows_that_the_server_has_stopped(page: Page, command: subprocess.Popen[str]) -> None:
    """Press Ctrl-C while the browser holds connections open."""
    command.send_signal(signal.SIGINT)
    assert command.wait(timeout=60) == 0
    assert command.stderr is not None
    assert command.stderr.read() == "mnist-amp: stopped by SIGINT; the page is no longer served.\n"
    page.draw([(0.5, 0.5)])
    page.eventually(page.find("#error").is_displayed)
    assert page.find("#error").text == "The server does not answer. Start mnist-amp demo again, then continue to draw."
