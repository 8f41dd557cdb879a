"""Headless Chromium for the tests of the page, or the reason why there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

# Why browser tests may be skipped; `make browser` installs what is missing, where it can.
SKIPS = {
    "selenium": "the package selenium (extra `test`) is not installed",
    "chromium": "no program chromium; `make browser` installs Debian's as root",
    "chromedriver": "no program chromedriver; `make browser` installs Debian's chromium-driver",
}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",  # 64 MB in a container
    "--window-size=1280,900",
)
SECONDS = 120


def missing() -> str | None:
    """The reason to skip, or None if everything is there."""
    if importlib.util.find_spec("selenium") is None:
        return SKIPS["selenium"]
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return SKIPS[program]
    return None


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One browser for all tests of a process; it is started only if one of them runs."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    with chromium() as driver:
        yield driver


@pytest.fixture
def window(browser: Any) -> Window:
    return Window(browser)


@contextmanager
def chromium() -> Iterator[Any]:
    """A selenium driver with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # The driver is on this machine, whatever proxy leads elsewhere.
    os.environ["no_proxy"] = "localhost,127.0.0.1"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        try:
            driver.set_page_load_timeout(SECONDS)
            driver.set_script_timeout(SECONDS)
            yield driver
        finally:
            driver.quit()


class Window:
    """One page in the browser."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(
        self, page: Path, fragment: str = "", *, width: int = 1280, scripts: bool = True
    ) -> None:
        self.command("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        # No smooth scrolling: where things are is settled at once.
        self.media("prefers-reduced-motion", "reduce")
        self.driver.get("about:blank")
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(page.as_uri() + fragment)

    def media(self, name: str, value: str) -> None:
        features = {"prefers-reduced-motion": "reduce", name: value}
        self.command(
            "Emulation.setEmulatedMedia",
            features=[{"name": one, "value": text} for one, text in features.items()],
        )

    def command(self, name: str, **arguments: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, arguments)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    @property
    def shown(self) -> list[str]:
        """Names of the contracts that a search has left."""
        return self.run(
            "return [...document.querySelectorAll('article')]"
            ".filter((one) => one.checkVisibility()).map((one) => one.id)"
        )

    @property
    def listed(self) -> list[str]:
        """Their names in the list beside."""
        return self.run(
            "return [...document.querySelectorAll('nav li')]"
            ".filter((one) => !one.hidden).map((one) => one.querySelector('bdi').textContent)"
        )

    @property
    def focused(self) -> str:
        """Id of what has the focus, or the fragment that it leads to."""
        return self.run(
            "return document.activeElement.id || document.activeElement.getAttribute('href')"
        )
