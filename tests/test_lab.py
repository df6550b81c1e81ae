"""JupyterLab in a real browser: notebooks 00 and 31 run twice, show captions and no error, and nothing of it is committed."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.helpers import comes_true

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NOTEBOOKS = {"00_quickstart": "quickstart_certificates", "31_consistency": "mean_rrd"}  # and a caption that each shows
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
OPEN = "path => window.jupyterapp.commands.execute('docmanager:open', {path})"
CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.filter(c => c.cell_type == 'code')"
READY = """name => { const w = window.jupyterapp && window.jupyterapp.shell.currentWidget;
    return w?.context?.path.includes(name) && w.context.isReady && w.sessionContext.session?.kernel?.status == 'idle' }"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab in a git checkout with the notebooks of a profile that is certified, and its folder."""
    for name in ("nbstripout", "ipywidgets"):
        pytest.importorskip(name, reason=f"{name} is not installed; `make` installs it")
    folder = tmp_path_factory.mktemp("lab")
    paths = {"SRS_ROOT": folder, "JUPYTER_CONFIG_DIR": folder.parent, "PYTHONPATH": f"{ROOT}:{os.getenv('PYTHONPATH', '')}"}
    environment = os.environ | {name: str(path) for name, path in paths.items()}
    for command in ("train", "certify"):
        words = [sys.executable, "-m", "srs", command, "--profile", "smoke"]
        subprocess.run(words, env=environment, check=True, capture_output=True)
    next(folder.rglob("weights.safetensors")).unlink()  # notebook 00 trains the model in Lab, with a progress bar
    (folder / "notebooks").mkdir()
    for name in NOTEBOOKS:
        path = folder / "notebooks" / f"{name}.ipynb"
        shutil.copy(ROOT / "notebooks" / path.name, path)
        path.write_text(re.sub(r'profile = \\"digits\\"', r'profile = \\"smoke\\"', path.read_text()))
    shutil.copy(ROOT / ".gitattributes", folder)
    (folder / ".gitignore").write_text("data\nfigures\n.ipynb_checkpoints\n")
    said = subprocess.check_output(["make", "-n", "lab"], cwd=ROOT, text=True)
    strip = re.search(r"git config filter.notebooks.clean '\S+ (.*)' ", said)[1]
    for words in (["init", "-q"], ["config", "filter.notebooks.clean", f"{sys.executable} {strip}"], ["add", "-A"],
                  ["-c", "user.name=x", "-c", "user.email=x@y.z", "commit", "-qm", "x"]):  # fmt: skip
        subprocess.run(["git", *words], cwd=folder, check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--IdentityProvider.token=",
         "--LabApp.expose_app_in_browser=True"], cwd=folder, env=environment, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        def listens() -> bool:
            with socket.socket() as asks:
                return asks.connect_ex(("127.0.0.1", port)) == 0

        assert comes_true(listens, 120)
        yield f"http://127.0.0.1:{port}/lab", folder
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_notebooks_run_twice_in_a_browser_and_git_stays_clean(lab):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install '.[browser]'")
    address, folder = lab
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(240_000)
        page.goto(address)
        page.wait_for_function("() => window.jupyterapp && window.jupyterapp.restored")
        for name, caption in NOTEBOOKS.items():
            page.evaluate(OPEN, f"notebooks/{name}.ipynb")
            page.wait_for_function(READY, arg=name)
            for again in range(2):
                page.evaluate(RUN_ALL)
                cells = page.evaluate(CELLS)
                outputs = [out for cell in cells for out in cell["outputs"]]
                assert [out for out in outputs if out["output_type"] in ("error", "stream")] == []  # nor a bar as raw text
                assert ("widget-view" in str(outputs)) == (name == "00_quickstart" and not again), "a bar while it trains"
                assert cells[-1]["execution_count"] == (1 + again) * len(cells)
                assert any(f"*{caption}.*" in str(out) for out in outputs)
            page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
            stored = json.loads((folder / "notebooks" / f"{name}.ipynb").read_text())
            assert any(cell.get("outputs") for cell in stored["cells"]), "saved with its outputs"
        browser.close()
    for words in (["diff"], ["add", "-u"], ["status", "--porcelain"]):  # a commit takes nothing of what was run
        assert subprocess.check_output(["git", *words], cwd=folder, text=True) == ""
