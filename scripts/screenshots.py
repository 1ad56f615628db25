"""Takes README's pictures of the MLflow UI from this checkout's store: `python scripts/screenshots.py`.

Needs Chromium and chromedriver on the PATH, and selenium, of the `dev` extra.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException

DOCS = Path("docs")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
WAIT_S = 180
"""A page of the UI takes seconds; on two cores that other processes share, a minute was too short."""
POLL_S = 0.2
NO_ASSISTANT = "localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')"
BANNER = "[aria-label='Hide banner']"
"""Says that the view is a shared one."""
PICTURES = (
    ("mlflow-table", "table", (1640, 700), ".ag-row a"),
    ("mlflow-charts", "charts", (1640, 1180), ".js-plotly-plot .scatterlayer .trace"),
)
"""File under docs/, address, size of the window, and what has to be on the page."""


def main() -> None:
    if not (CHROMIUM and CHROMEDRIVER):
        raise SystemExit("error: needs Chromium and chromedriver on the PATH")
    with served_ui(Path.cwd()) as addresses:
        for name, page, size, shown in PICTURES:
            take(DOCS / f"{name}.png", addresses[page], size, shown)


def take(file: Path, address: str, size: tuple[int, int], shown: str) -> None:
    """Writes a picture of the page at `address`, once elements that the selector `shown` names are on it."""
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile), size) as driver:
        driver.get(address)
        driver.execute_script(NO_ASSISTANT)
        show(driver, address)
        until(lambda: driver.find_elements("css selector", BANNER))[0].click()
        until(lambda: driver.find_elements("css selector", shown))
        driver.save_screenshot(str(file))
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB")


@contextmanager
def served_ui(folder: Path) -> Iterator[dict[str, str]]:
    """Runs `sentiment ui` in a project folder on a free port; yields the addresses that it prints, by name."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipeline.cli", "ui", "--port", str(port)]
    with tempfile.TemporaryFile("w+") as log:
        served = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            assert served.stdout is not None
            addresses = dict(line.split() for line in (served.stdout.readline(), served.stdout.readline()) if line)
            server = f"http://127.0.0.1:{port}"
            until(lambda: served.poll() is not None or answers(server))
            if served.poll() is not None:
                log.seek(0)
                raise RuntimeError(f"`sentiment ui` ended: {log.read()[-3000:]}")
            yield addresses
        finally:
            served.terminate()
            served.wait(30)
            if served.stdout:
                served.stdout.close()


def answers(server: str) -> bool:
    """Whether an MLflow server is up."""
    try:
        with urllib.request.urlopen(f"{server}/health", timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def browser(profile: Path, size: tuple[int, int]) -> Iterator[Any]:
    """Yields a headless Chromium that reaches this machine alone: the UI is to work without a network."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (
        "headless",
        "no-sandbox",  # which Chromium cannot have as root
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-quic",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-first-run",
        "blink-settings=primaryHoverType=2,availableHoverTypes=2",  # a mouse, or each chart shows its toolbar
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        f"window-size={size[0]},{size[1]}",
        f"user-data-dir={profile}",
    ):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(CHROMEDRIVER)  # named, or selenium would download one
    with webdriver.Chrome(options=options, service=service) as driver:
        yield driver


def show(driver: Any, address: str) -> None:
    """Opens a page of the UI anew: an address that differs after its # alone would load nothing."""
    driver.get("about:blank")
    driver.get(address)


def until(condition: Callable[[], Any]) -> Any:
    """Waits for `condition` and returns what it found; what the page replaces meanwhile is looked up anew."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except StaleElementReferenceException:
            pass
        time.sleep(POLL_S)
    raise TimeoutError(f"the page did not show what was waited for within {WAIT_S} s")


if __name__ == "__main__":
    main()
