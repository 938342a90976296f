"""A real headless browser for tests of pages: Chromium as Debian has it, driven by Selenium."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 30


@contextmanager
def opened(address: str, width: int = 1300, height: int = 900) -> Iterator[Page]:
    """Open a page; skips the test where there is no browser."""
    browser, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if browser is None or driver is None:
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    # Chromium's own sandbox does not work for root, which tests in containers are.
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        running.get(address)
        yield Page(running)
    finally:
        running.quit()


class Page:
    """What a visitor sees and does."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def one(self, selector: str) -> Any:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """Texts of all elements at one moment: the page may replace them meanwhile."""
        code = "return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText)"
        return list(self.driver.execute_script(code, selector))

    def until(self, holds: Callable[[], Any]) -> Any:
        """Wait until something is true of the page, and return it."""
        return WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: holds())

    def until_texts(self, selector: str, expected: list[str]) -> None:
        try:
            self.until(lambda: self.texts(selector) == expected)
        except TimeoutException:
            assert self.texts(selector) == expected

    def click(self, selector: str) -> None:
        self.driver.execute_script("document.querySelector(arguments[0]).click()", selector)

    def type(self, *keys: str) -> None:
        """Press keys wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def focused(self) -> str:
        return str(self.driver.execute_script("return document.activeElement.id || document.activeElement.ariaLabel"))

    def errors(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
