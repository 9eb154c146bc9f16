"""The Chinese pages say what the English ones say: the same commands, results, numbers and links, in good typography.

If `test_pages_agree` fails after a change of an English page, change the Chinese page at the place in the message.
"""

import posixpath

import pytest

from tests.project.documents import CHINESE, text_of
from tests.project.translations import differences
from tests.project.typography import faults

ENGLISH_SAMPLE = """\
# Title

English | [简体中文](zh/page.md)

It takes 12 minutes for 10,000 images in bfloat16, see [Next](page.md#next) and [Other](other.md#part).

```bash
mnist-amp fit  # train
mnist-amp test
```

<!-- docs/results/one.md -->
![Chart](results/one.png) of 3.4 ms
<!-- end -->

## Next

- Use `--seeds`.
"""
CHINESE_SAMPLE = """\
# 标题

[English](../page.md) | 简体中文

在 bfloat16 下，10,000 张图像需要 12 分钟，见 [接下来](page.md#接下来) 和 [其他](../other.md#part)。

```bash
mnist-amp fit  # train
mnist-amp test
```

结果是：

<!-- docs/results/one.md -->
![Chart](../results/one.png) of 3.4 ms
<!-- end -->

## 接下来

- 使用 `--seeds`。
"""
TITLE, NEXT = "docs/zh/page.md:1 (标题)", "docs/zh/page.md:18 (接下来)"
ENGLISH_TITLE, ENGLISH_NEXT = "docs/page.md:1 (Title)", "docs/page.md:16 (Next)"


def sample_differences(chinese: str) -> list[str]:
    pages = ("docs/page.md", "docs/zh/page.md")
    return differences(pages, (ENGLISH_SAMPLE, chinese), {pages[0]: pages[1]})


@pytest.mark.parametrize("page", CHINESE)
def test_pages_agree(page: str) -> None:
    pages = (page, CHINESE[page])
    assert differences(pages, (text_of(pages[0]), text_of(pages[1])), CHINESE) == []


@pytest.mark.parametrize("page", CHINESE.values())
def test_typography(page: str) -> None:
    assert list(faults(page, text_of(page))) == []


def test_the_pages_are_there() -> None:
    assert {"README.md", "docs/index.md", "docs/own.md", "docs/precision.md"} <= set(CHINESE)


@pytest.mark.parametrize("page", CHINESE)
def test_pages_name_each_other(page: str) -> None:
    """The third line of both leads to the other language."""
    chinese = CHINESE[page]
    to_chinese, to_english = (
        posixpath.relpath(target, posixpath.dirname(start) or ".")
        for start, target in ((page, chinese), (chinese, page))
    )
    assert text_of(page).splitlines()[2] == f"English | [简体中文]({to_chinese})"
    assert text_of(chinese).splitlines()[2] == f"[English]({to_english}) | 简体中文"


def test_the_readmes_are_of_one_length() -> None:
    """A paragraph is one line in Chinese, and several in English."""
    lines = [len(text_of(page).splitlines()) for page in ("README.zh-CN.md", "README.md")]
    assert 0.75 * lines[1] < lines[0] <= lines[1]


def test_a_translation_has_no_differences() -> None:
    assert sample_differences(CHINESE_SAMPLE) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "amp test\n",
            "amp demo\n",
            [f"{TITLE}: block 1 has 'mnist-amp demo' for 'mnist-amp test' of {ENGLISH_TITLE}"],
        ),
        ("mnist-amp test\n", "", [f"{TITLE}: block 1 has '```' for 'mnist-amp test' of {ENGLISH_TITLE}"]),
        (
            "  # train",
            "  # 训练",
            [f"{TITLE}: block 1 has 'mnist-amp fit  # 训练' for 'mnist-amp fit  # train' of {ENGLISH_TITLE}"],
        ),
        (
            "results/one.md",
            "results/two.md",
            [
                f"{TITLE}: block 2 has '<!-- docs/results/two.md -->' for '<!-- docs/results/one.md -->' of "
                f"{ENGLISH_TITLE}"
            ],
        ),
        ("## 接", "```bash\nmake\n```\n\n## 接", [f"{TITLE}: block 3 has '```bash' for '' of {ENGLISH_TITLE}"]),
        (
            "12 分钟",
            "15 分钟",
            [
                f"{TITLE}: numbers of {ENGLISH_TITLE} are missing: 12",
                f"{TITLE}: numbers are not in {ENGLISH_TITLE}: 15",
                f"{TITLE}: units of {ENGLISH_TITLE} are missing: 12 minutes",
            ],
        ),
        ("12 分钟", "12 秒", [f"{TITLE}: units of {ENGLISH_TITLE} are missing: 12 minutes"]),
        (
            "10,000",
            "1 万",
            [
                f"{TITLE}: numbers of {ENGLISH_TITLE} are missing: 10,000",
                f"{TITLE}: numbers are not in {ENGLISH_TITLE}: 1",
            ],
        ),
        (
            "bfloat16",
            "fp16",
            [
                f"{TITLE}: names of {ENGLISH_TITLE} are missing: bfloat16",
                f"{TITLE}: names are not in {ENGLISH_TITLE}: fp16",
            ],
        ),
        ("`--seeds`", "随机种子", [f"{NEXT}: code spans of {ENGLISH_NEXT} are missing: `--seeds`"]),
        ("`--seeds`", "`--seeds` 和 `-h`", [f"{NEXT}: code spans are not in {ENGLISH_NEXT}: `-h`"]),
        (
            "../other.md#part",
            "../other.md#whole",
            [
                f"{TITLE}: links of {ENGLISH_TITLE} are missing: docs/other.md#part",
                f"{TITLE}: links are not in {ENGLISH_TITLE}: docs/other.md#whole",
            ],
        ),
        ("- 使用", "使用", [f"{NEXT}: lines of {ENGLISH_NEXT} are missing: list item"]),
        ("## 接下来\n", "", [f"docs/zh/page.md: no section for {ENGLISH_NEXT}"]),
        (
            "## 接",
            "### 接",
            [f"{NEXT}: a heading of level 3; the English page has one of level 2, {ENGLISH_NEXT}"],
        ),
        ("`。\n", "`。\n\n## 另外\n", ["docs/zh/page.md:22 (另外): a heading of level 2; the English page has none"]),
    ],
)
def test_a_difference_is_named_with_both_places(old: str, new: str, expected: list[str]) -> None:
    assert CHINESE_SAMPLE.count(old) == 1
    assert sample_differences(CHINESE_SAMPLE.replace(old, new)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("用 GPU 训练 5 个 epoch，准确率 96.7%。见 [下页](a.md)（`fit`）。", []),
        ("输入图像 (N, C, H, W)，即四维。\n\n```text\n中,文abc\n```\n\n| 甲（乙） | 丙 |\n- **粗体？** abc", []),
        ("训练,测试", ["half-width punctuation beside a Chinese character: '训练,测试'"]),
        ("训练(GPU 上)", ["half-width punctuation beside a Chinese character: '训练(GPU 上)'"] * 2),
        ("用GPU 训练", ["no space between a Chinese character and a Latin one: '用GPU 训练'"]),
        ("运行`fit` 训练", ["no space between a Chinese character and a Latin one: '运行`x` 训练'"]),
        ("96%的图像", ["no space between a Chinese character and a Latin one: '96%的图像'"]),
        ("用 GPU ，训练", ["a space beside full-width punctuation: '用 GPU ，训练'"]),
        ("训练\n测试", ["a line break within a paragraph: '训练\\n测试'"]),
    ],
)
def test_faults_of_typography_are_found(text: str, expected: list[str]) -> None:
    assert list(faults("page", text)) == [f"page:1: {fault}" for fault in expected]
