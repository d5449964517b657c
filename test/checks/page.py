"""The server's page in headless Chromium, end to end: start, type, read the answers, see an error.

  python test/checks/page.py --screenshots output/page

Needs chromium and chromedriver on PATH; speaks WebDriver to the latter by HTTP. Writes a screenshot of
each step.
"""
import argparse
import base64
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from typing import Any, Callable, List, Optional

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [ROOT, os.path.join(ROOT, "test", "helpers")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from exported import make_reader, make_shipped_classifier, make_shipped_labels, make_shipped_tagger
from estimator.model.kinds import CHOICES, SPANS
from serving import export

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"      # WebDriver's key of a found element
PATIENCE_SECONDS = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--screenshots", default="output/page", help="folder")
    folder = parser.parse_args().screenshots
    for program in ("chromedriver", "chromium"):
        if not shutil.which(program):
            print("%s is not on PATH (Debian: apt install chromium chromium-driver)" % program,
                  file=sys.stderr)
            return 1
    os.makedirs(folder, exist_ok=True)
    shown = []
    for make, check in ((make_shipped_classifier, check_classifier), (make_shipped_labels, check_labels),
                        (make_shipped_tagger, check_tagger),
                        (lambda folder, *_: make_reader(folder, SPANS), check_reader),
                        (lambda folder, *_: make_reader(folder, CHOICES), check_chooser)):
        shown += serve(make, check, folder)
    print("The page works; look at %s" % ", ".join(shown))
    return 0


def serve(make: Callable[..., Any], check: Callable[..., None], folder: str) -> List[str]:
    """Checks the page of a server that has the model; returns the paths of the screenshots."""
    with tempfile.TemporaryDirectory() as models:
        make(os.path.join(models, "finetune"), "tiny", 32)
        if export.main(["--checkpoint_dir", os.path.join(models, "finetune"), "--output_dir", models,
                        "--version", "7"]):
            sys.exit(1)
        server = subprocess.Popen(
            [sys.executable, "-m", "serving.server", "--model_base_path", models, "--port", "0",
             "--rest_api_port", "0", "--max_text_bytes", "600", "--access_log", "false"],
            cwd=ROOT, stdout=subprocess.PIPE)
        driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE)
        try:
            url = re.search(r"http://\S+:\d+", server.stdout.readline().decode()).group(0)
            browser = Browser(driver, folder)
            try:
                check(browser, url, server)
            finally:
                browser.quit()
        finally:
            for process in (server, driver):
                process.terminate()
                process.wait()
    return browser.screenshots


def check_classifier(browser: "Browser", url: str, server: Any) -> None:
    """Raises AssertionError where the page does not show what it should."""
    browser.open(url)
    browser.wait_for("#version", "版本 7，最多 32 个词元")
    assert "albert" in browser.text("h1")
    browser.screenshot("start")

    browser.type("#text_a", "手机没信号怎么办\n北京天气怎么样，㋿\n只有一句")
    browser.type("#text_b", "手机搜不到网络怎么处理\n上海今天下雨吗")
    browser.click("#ask")
    browser.wait_for("#latency", "3 条")
    answers = browser.texts("article")
    assert len(answers) == 3 and "手机没信号怎么办 ｜ 手机搜不到网络怎么处理" in answers[0], answers
    assert all(re.search(r"标签：[01]", answer) and len(re.findall(r"\d+\.\d%", answer)) == 2
               for answer in answers), answers
    assert browser.texts("article:nth-child(2) .unknown") == ["[UNK]"]
    assert browser.texts("article:nth-child(3) .token") == ["[CLS]", "只", "有", "一", "句", "[SEP]"]
    widths = browser.run("return [...document.querySelectorAll('article:first-child .bar')].map(bar => "
                         "bar.clientWidth)")
    assert len(widths) == 2 and all(width > 0 for width in widths), widths
    browser.click("summary")
    assert "sentence_pair" in browser.text("#card")
    browser.screenshot("answers")

    browser.run("document.getElementById('text_a').value = '长'.repeat(201)")
    browser.click("#ask")
    browser.wait_for("#error", "a text must have at most 600 bytes, got 603")
    assert not browser.texts("article")
    browser.screenshot("error")

    loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith((url, "data:")) for name in loaded), loaded

    server.send_signal(signal.SIGTERM)
    server.wait()
    browser.click("#ask")
    browser.wait_for("#error", "连不上服务器")
    browser.screenshot("no_server")


def check_labels(browser: "Browser", url: str, server: Any) -> None:
    """The same of a model of several labels: a bar for each, those that reach the threshold first."""
    browser.open(url)
    browser.wait_for("#version", "版本 7，最多 32 个词元")
    browser.type("#text_a", "手机没信号怎么办\n北京天气怎么样")
    browser.click("#ask")
    browser.wait_for("#latency", "2 条")
    for number, answer in enumerate(browser.texts("article"), 1):
        row = "article:nth-child(%d) .class" % number
        shares = [float(text[:-1]) for text in browser.texts(row + " .number")]
        given = [share for share in shares if share >= 50]
        names = browser.texts(row + ".best > :first-child")
        assert len(shares) == 4 and shares == sorted(shares, reverse=True), shares
        assert len(names) == len(given) and "标签：" + ("，".join(names) or "无") in answer, answer
    browser.screenshot("labels")


def check_tagger(browser: "Browser", url: str, server: Any) -> None:
    """The same of a model that labels entities: all characters are shown, and entities in their places."""
    texts = ["手机没信号怎么办，👍🏽e\u0301在北京" * 3, "北京天气怎么样"]
    browser.open(url)
    browser.wait_for("#version", "版本 7，最多 32 个词元")
    browser.run("document.getElementById('text_a').value = %s" % json.dumps("\n".join(texts)))
    browser.click("#ask")
    browser.wait_for("#latency", "2 条")
    shown = browser.run("return [...document.querySelectorAll('article')].map(article => {"
                        "const text = article.querySelector('.texts').cloneNode(true);"
                        "text.querySelectorAll('small').forEach(label => label.remove());"
                        "return text.textContent; })")
    assert shown == texts, shown
    entities = browser.texts(".entity")
    assert entities and all(re.search("[人地]$", entity) for entity in entities), entities
    browser.screenshot("entities")


def check_reader(browser: "Browser", url: str, server: Any) -> None:
    """The same of a model that finds answers: places count characters, of which an emoji is one, though it is
    two of UTF-16's units."""
    browser.open(url)
    browser.wait_for("#name_a", "问题")
    passage = "😀你好北京，手机没信号😀怎么办"
    browser.run("document.getElementById('text_b').value = arguments[0]", passage)
    browser.type("#text_a", "手机怎么办？\n北京好吗？")
    browser.click("#ask")
    browser.wait_for("#latency", "2 条")
    for number, answer in enumerate(browser.texts("article"), 1):
        begin, end = map(int, re.search(r"第 (\d+) 到 (\d+) 个字符", answer).groups())
        marked, = browser.texts("article:nth-child(%d) mark" % number)
        assert marked == passage[begin:end] and begin < end, (answer, marked)
        assert "答案：%s" % marked in answer and passage in answer, answer
    browser.screenshot("answer_in_its_passage")
    browser.run("document.getElementById('text_a').value = ''")
    browser.click("#ask")
    browser.wait_for("#error", "请先输入问题")


def check_chooser(browser: "Browser", url: str, server: Any) -> None:
    """The same of a model that chooses among candidates."""
    browser.open(url)
    browser.wait_for("#name_b", "文章（可空）")
    browser.type("#text_a", "手机_？")
    browser.type("#candidates", "没信号")
    browser.click("#ask")
    browser.wait_for("#error", "请输入 2 到 64 个候选答案")
    browser.type("#candidates", "\n你好\n北京")
    browser.click("#ask")
    browser.wait_for("#latency", "1 条")
    article, = browser.texts("article")
    shares = [float(share) for share in re.findall(r"(\d+\.\d)%", article)]
    assert len(shares) == 3 and abs(sum(shares) - 100) < 0.2, article
    best, = browser.texts("article .best span:first-child")
    assert best == ["没信号", "你好", "北京"][shares.index(max(shares))], article
    browser.screenshot("candidates")


class Browser:
    """A headless Chromium, by WebDriver."""

    def __init__(self, driver: Any, folder: str) -> None:
        port = None
        while port is None:
            port = re.search(rb"started successfully on port (\d+)", driver.stdout.readline())
        self._folder, self._url = folder, "http://127.0.0.1:%d/session" % int(port.group(1))
        self.screenshots: List[str] = []
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,1100"]
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": {
            "args": arguments, "binary": shutil.which("chromium")}}}
        self._url += "/" + self._call("POST", "", {"capabilities": capabilities})["sessionId"]

    def open(self, url: str) -> None:
        self._call("POST", "/url", {"url": url})

    def type(self, selector: str, text: str) -> None:
        self._call("POST", "/element/%s/value" % self._find(selector)[0], {"text": text})

    def click(self, selector: str) -> None:
        self._call("POST", "/element/%s/click" % self._find(selector)[0], {})

    def text(self, selector: str) -> str:
        return self.texts(selector)[0]

    def texts(self, selector: str) -> List[str]:
        """What can be seen of each element."""
        return [self._call("GET", "/element/%s/text" % found) for found in self._find(selector)]

    def run(self, script: str, *arguments: Any) -> Any:
        return self._call("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait_for(self, selector: str, text: str) -> None:
        """Raises AssertionError when the element does not show `text` in time."""
        end = time.monotonic() + PATIENCE_SECONDS
        while text not in self.text(selector):
            assert time.monotonic() < end, "%s shows %r, not %r; error: %r" % (
                selector, self.text(selector), text, self.texts("#error"))
            time.sleep(0.05)

    def screenshot(self, name: str) -> None:
        self.screenshots.append(os.path.join(self._folder, name + ".png"))
        with open(self.screenshots[-1], "wb") as stream:
            stream.write(base64.b64decode(self._call("GET", "/screenshot")))

    def quit(self) -> None:
        self._call("DELETE", "")

    def _find(self, selector: str) -> List[str]:
        return [found[ELEMENT]
                for found in self._call("POST", "/elements", {"using": "css selector", "value": selector})]

    def _call(self, method: str, path: str, body: Optional[Any] = None) -> Any:
        request = urllib.request.Request(self._url + path, method=method,
                                         headers={"content-type": "application/json"},
                                         data=None if body is None else json.dumps(body).encode("utf-8"))
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(json.load(error)["value"]["message"])


if __name__ == "__main__":
    sys.exit(main())
