"""A browser without a window, for tests of pages."""

import os
import shutil
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


def start_browser(folder: Path) -> webdriver.Chrome:
    """Start a browser that writes to a folder. Without one, the test is skipped; in CI it fails."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        reason = f"needs a browser ({', '.join(BROWSERS)}) and chromedriver in PATH"
        (pytest.fail if os.environ.get("CI_BROWSER") == "1" else pytest.skip)(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (*QUIET, f"--user-data-dir={folder}"):
        options.add_argument(argument)
    return webdriver.Chrome(options, Service(driver))
