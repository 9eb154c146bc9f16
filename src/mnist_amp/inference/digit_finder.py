"""Find the digits in an image: connected parts of ink, without paper's lines, form boxes, shadows and specks."""

import importlib.util
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mnist_amp.inference import mnist_form as mf
from mnist_amp.inference.mnist_form import SIDE, NoInkError, mnist_form

Mask = NDArray[np.uint8]
HAS_OPENCV = importlib.util.find_spec("cv2") is not None

STROKE = 0.21
LINE = 0.02
RUN = 0.1
TILT = range(-12, 13, 4)
INK = 51
STRONG = 128
FAINT = 22
MANY = 40


@dataclass(frozen=True)
class Digit:
    pixels: NDArray[np.uint8]
    box: tuple[int, int, int, int]
    notes: tuple[str, ...]


def find_digits(image: Image.Image) -> list[Digit]:
    import cv2
    if max(image.size) <= SIDE or not HAS_OPENCV:
        return [Digit(mnist_form(image), (0, 0, *image.size), ())]
    levels = mf.opaque(mf.reduced(image))
    ink, paper = _ink(levels)
    ink = _without_lines(ink, paper)
    labels, boxes = _parts(ink, paper)
    f = image.width / levels.shape[1]
    out = []
    for row in _rows(_groups(boxes), boxes):
        row, note = _without_separators(row, labels)
        for box, g in row:
            l, t, r, b = box
            part = ink[t:b, l:r] * cv2.dilate(np.isin(labels[t:b, l:r], np.array(g) + 1).astype(np.uint8), np.ones((5, 5), np.uint8))
            notes = note + ("may be several digits that touch",) * ((r - l) > 1.5 * (b - t))
            out.append(Digit(mf.placed(part / np.float32(255)), (int(l * f), int(t * f), int(r * f), int(b * f)), notes))
    if not out:
        raise NoInkError("no ink: nothing stands out from the background")
    return out


def _ink(levels):
    """Return ink 0 to 255 and the mask of paper"""
    import cv2
    edge = mf.border(levels)
    colour, _ = mf.commonest(edge)
    if (np.abs(edge - colour) <= 2).all(axis=1).mean() > 0.6:
        ink = mf.ink(levels)
        if (ink > 0.2).mean() < 0.5:
            return (ink * 255).astype(np.uint8), np.full(ink.shape, 2, np.uint8)
    h, w = levels.shape[:2]
    small = _shrunk(levels, 100 / max(h, w))
    paper, gray = _paper(small), None
    axis = _contrast(small, paper)
    gray = cv2.transform(levels, np.append(axis, 255 * np.abs(axis[axis < 0]).sum())[None])
    gray = cv2.GaussianBlur(gray, (5, 5), 0) if max(h, w) > 100 else gray.reshape(h, w)
    paper = cv2.resize(paper, (w, h), interpolation=cv2.INTER_NEAREST)
    k = int(max(h, w) * STROKE) // 2 * 2 + 1
    back = cv2.morphologyEx(gray, cv2.MORPH_CLOSE, np.ones((k, k), np.uint8))
    ink = 255 - cv2.divide(gray, back.clip(1), scale=255)
    # the paper has the least ink; more than half of a crop may be ink
    lowest, low, largest = np.quantile(ink[paper > 0][::7], (0.05, 0.3, 0.995))
    noise = (low - lowest) / 1.17 + 0.5
    middle = low + 0.4 * noise
    largest -= middle
    if largest < max(FAINT, 5 * noise):
        raise NoInkError("no ink: nothing stands out from the background")
    table = ((np.arange(256) - middle - 3 * noise) / (largest - 3 * noise)).clip(0, 1) * 255
    return cv2.LUT(ink, table.astype(np.uint8)) * (paper > 0), paper


def _shrunk(levels, factor):
    import cv2
    if factor < 1:
        levels = cv2.resize(levels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return levels.reshape(*levels.shape[:2], -1)


def _paper(small):
    """1 where the paper is, 0 on the table around it."""
    import cv2
    bright = small.max(axis=2)
    bright = cv2.medianBlur(bright, 3)
    level, mask = cv2.threshold(bright, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    everything = np.ones_like(mask)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea, default=None)
    if largest is None or len(largest) < 4: return everything
    hull = cv2.convexHull(largest)
    area, full = cv2.contourArea(largest), cv2.contourArea(hull)
    paper = np.zeros_like(mask)
    cv2.fillConvexPoly(paper, hull, 1)
    e = mf.border(paper)
    if full < 0.3 * mask.size or area < 0.9 * full or e.mean() > 0.3:
        return everything
    return cv2.erode(paper, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_REPLICATE)


def _contrast(small, paper):
    """Weights of the channels, negative for light ink."""
    import cv2
    small = small.copy()
    small[paper == 0] = np.median(small[paper > 0], axis=0)
    k = np.ones((int(max(small.shape) * STROKE) // 2 * 2 + 1,) * 2, np.uint8)
    closed, opened = (cv2.morphologyEx(small, kind, k).reshape(small.shape) for kind in (cv2.MORPH_CLOSE, cv2.MORPH_OPEN))
    # Without its ink, paper is smooth
    rough = [np.array(cv2.mean(cv2.morphologyEx(x, cv2.MORPH_GRADIENT, np.ones((3, 3))))[: small.shape[2]]) for x in (closed, opened)]
    dark = rough[0] <= 1.1 * rough[1]
    hats = np.where(dark, closed - small, small - opened)
    axis = (np.quantile(hats.reshape(-1, small.shape[2])[::3], 0.98, axis=0) + 1) * np.where(dark, 1, -1)
    return axis / np.abs(axis).sum()


def _line(k, angle):
    """A kernel."""
    import cv2
    r = k // 2
    d = round(r * np.tan(np.radians(angle)))
    m = np.zeros((2 * abs(d) + 1, 2 * r + 1), np.uint8)
    cv2.line(m, (0, abs(d) - d), (2 * r, abs(d) + d), 1)
    return m


def _without_lines(ink, paper):
    import cv2
    mask = (ink > INK).astype(np.uint8)
    side = max(mask.shape)
    small = (cv2.resize(mask * 255, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    near = np.ones((3, 3), np.uint8)
    k = int(LINE * side / 2)
    wide = cv2.dilate(cv2.morphologyEx(small, cv2.MORPH_OPEN, np.ones((k, k), np.uint8)), near)
    small = cv2.dilate(small, near)
    edge = 1 - (cv2.resize(paper, small.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0).astype(np.uint8)
    edge = cv2.dilate(cv2.copyMakeBorder(edge, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1), np.ones((9, 9), np.uint8))[1:-1, 1:-1]
    segs = _segments(small, wide, mask), _segments(small.T, wide.T, mask.T)
    while True:
        runs = [_drawn(segs[0], small.shape, 9), _drawn(segs[1], small.shape[::-1], 9)]
        kept = [x for x in segs[0] if _stops(x, runs[1].T | edge)], [x for x in segs[1] if _stops(x, runs[0].T | edge.T)]
        if [len(k) for k in kept] == [len(k) for k in segs]: break
        segs = kept
    if not (kept[0] or kept[1]): return ink
    n = int(min(np.quantile([x[4] for k in kept for x in k], 0.8), LINE * side)) + 3
    thin = mask & ~cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((n, n), np.uint8))
    lines = (_drawn(kept[0], mask.shape, n + 4, 2) | _drawn(kept[1], mask.shape[::-1], n + 4, 2).T) & thin
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (n + 3, n + 3))
    closed = cv2.morphologyEx(ink * (1 - lines), cv2.MORPH_CLOSE, kernel)
    mended = np.where(lines, np.minimum(ink, closed), ink)
    return mended if (mended > STRONG).any() else ink


def _stops(seg, edge):
    x0, y0, x1, y1, _ = seg
    h, w = edge.shape
    return all(edge[min(max(round(y), 0), h - 1), min(max(round(x), 0), w - 1)] for x, y in ((x0, y0), (x1, y1)))


def _drawn(segs, shape, width, scale=1):
    import cv2
    m = np.zeros(shape, np.uint8)
    for x0, y0, x1, y1, _ in segs:
        cv2.line(m, *((round(x * scale + scale / 2 - 0.5), round(y * scale + scale / 2 - 0.5)) for x, y in ((x0, y0), (x1, y1))), 1, width)
    return m


def _segments(small, thick, full):
    import cv2
    runs = _runs(np.ascontiguousarray(small), int(RUN * max(small.shape)))
    n, labels, stats, _ = cv2.connectedComponentsWithStats(runs)
    out = []
    for i in range(1, n):
        l, t, w, h, _ = stats[i]
        part = (labels[t:t+h, l:l+w] == i) & (thick[t:t+h, l:l+w] == 0)
        rows, columns = np.nonzero(part)
        if np.count_nonzero(part.any(axis=0)) < 0.5 * w: continue
        there = full[2*t:2*(t+h), 2*l:2*(l+w)]
        there = there & part.repeat(2, 0).repeat(2, 1)[:there.shape[0], :there.shape[1]]
        wide = there.sum(axis=0)
        wide = float(np.median(wide[wide > 0])) if wide.any() else 1.0
        vx, vy, x, y = cv2.fitLine(np.stack([columns, rows], axis=1).astype(np.float32), cv2.DIST_HUBER, 0, 0.01, 0.01).ravel()
        slope = vy / vx if vx else 9.0
        off = np.abs(rows - y - slope * (columns - x))
        if abs(slope) > 0.25 or np.median(off) > 3: continue
        out.append((l, t + y - slope * x, l + w - 1, t + y + slope * (w - 1 - x), wide))
    return out


def _runs(mask, length):
    import cv2
    runs = [cv2.morphologyEx(mask, cv2.MORPH_OPEN, _line(length, angle), borderType=cv2.BORDER_REPLICATE) for angle in TILT]
    best = int(np.argmax([cv2.countNonZero(run) for run in runs]))
    out = runs[best]
    for run in runs[max(best - 1, 0) : best + 2]:
        out = out | run
    return out


def _parts(ink, paper):
    import cv2
    mask = (ink > INK).astype(np.uint8)
    if paper.max() < 2:
        k = int(max(mask.shape) * LINE) * 2 + 1
        mask &= cv2.dilate((ink > STRONG).astype(np.uint8), np.ones((k, k), np.uint8))
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    boxes = np.stack([stats[:, 0], stats[:, 1], stats[:, 0] + stats[:, 2], stats[:, 1] + stats[:, 3]], axis=1)
    amounts = np.bincount(labels[ink > STRONG], minlength=n)
    amounts[0] = 0
    if paper.max() < 2:
        inner = cv2.erode(paper, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
        cut = np.unique(labels[paper > inner])
        rest = amounts.copy(); rest[cut] = 0
        if rest.max() > 0: amounts = rest
    keep = amounts > 0.02 * amounts.max()
    if keep.sum() > MANY:
        keep = amounts >= np.sort(amounts)[-MANY]
    new = np.zeros(n, np.int32)
    new[keep] = np.arange(1, keep.sum() + 1)
    return new[labels], boxes[keep]


def _groups(boxes):
    groups = [[i] for i in range(len(boxes))]
    while True:
        joined = np.array([_joined(boxes[g]) for g in groups])
        pair = np.argwhere(np.triu(_same(joined), 1))
        if len(pair) == 0: return groups
        i, j = pair[0]
        groups[i] += groups.pop(j)


def _same(boxes):
    left, top, right, bottom = boxes.T[:, :, None]
    tall = np.median(np.sort((bottom - top)[:, 0])[-max(len(boxes) // 2, 1):])
    over = np.minimum(right, right.T) - np.maximum(left, left.T)
    down = np.maximum(top, top.T) - np.minimum(bottom, bottom.T)
    narrow = np.minimum(right - left, (right - left).T)
    wide = np.maximum(right, right.T) - np.minimum(left, left.T)
    tiny = (bottom - top) < 0.45 * tall
    high = (top + bottom).T / 2 < top + 0.35 * (bottom - top)  # [i, j]: j is in the upper third of i, or above
    bar = tiny.T & high & ~tiny & (over > -0.15 * tall)
    return (down < 0.4 * tall) & ((over > 0.4 * narrow) | ((over > -0.08 * tall) & (wide < tall)) | bar | bar.T)


def _joined(boxes):
    return (*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())


def _rows(groups, boxes):
    items = sorted(((_joined(boxes[g]), g) for g in groups), key=lambda p: p[0][1] + p[0][3])
    tall = np.median([b[3] - b[1] for b, _ in items]) if items else 0
    rows = []
    for box, g in items:
        c = (box[1] + box[3]) / 2
        if rows and rows[-1][-1][0][1] - 0.2 * tall < c < rows[-1][-1][0][3] + 0.2 * tall:
            rows[-1].append((box, g))
        else:
            rows.append([(box, g)])
    return [sorted(row, key=lambda p: p[0][0]) for row in rows]


def _without_separators(row, labels):
    tall = np.median(sorted(b[3] - b[1] for b, _ in row)[-(len(row) // 2 + 1):])
    digits = [(b, g) for b, g in row if b[3] - b[1] > 0.45 * tall]
    tall = np.median([b[3] - b[1] for b, _ in digits])
    kept = [(b, g) for k, (b, g) in enumerate(digits) if not (2 < len(digits) and 0 < k < len(digits) - 1 and b[3] - b[1] > 1.1 * tall and _slash(labels, b, g))]
    return kept, ("a stroke between the digits was taken for a slash",) * (len(kept) < len(digits))


def _slash(labels, box, group):
    l, t, r, b = box
    y, x = np.nonzero(np.isin(labels[t:b, l:r], np.array(group) + 1))
    slope, start = np.polyfit(y, x, 1)
    off = np.abs(x - start - slope * y)
    return -0.7 < slope < -0.2 and np.quantile(off, 0.95) < 0.1 * (b - t)
