"""Procedural 64x64 image/caption data: one coloured shape on a coloured background.

Everything is vectorised numpy signed-distance rendering with analytic antialiasing;
no files are read.  Attributes: shape, colour, background colour, size, position.
"""
import numpy as np

SHAPES = ["circle", "square", "triangle", "star", "ring", "heart"]
COLORS = {"red": (214, 40, 44), "orange": (245, 140, 30), "yellow": (250, 218, 50),
          "green": (52, 160, 72), "blue": (44, 92, 206), "purple": (130, 62, 170),
          "white": (244, 244, 242), "black": (34, 34, 38)}
CNAMES = list(COLORS)
PALETTE = np.array([COLORS[c] for c in CNAMES], np.float32) / 255
SIZES = ["small", "medium", "large"]
POSITIONS = ["top left", "top", "top right", "left", "center", "right",
             "bottom left", "bottom", "bottom right"]
RADIUS = {0: (9.5, 11.5), 1: (14.0, 16.5), 2: (20.0, 23.5)}
OFFSET = {0: 19.0, 1: 14.5, 2: 8.0}

# Never shown in training: four shape/colour pairs, and one in ten of the other
# (shape, colour, background) triples.
HELD_PAIRS = {("heart", "green"), ("star", "purple"), ("triangle", "orange"), ("ring", "blue")}


def held_out(shape, color, bg):
    s, c = SHAPES[shape], CNAMES[color]
    return (s, c) in HELD_PAIRS or (shape * 31 + color * 17 + bg * 7) % 10 == 3


def combos(held):
    return [(s, c, b) for s in range(6) for c in range(8) for b in range(8)
            if b != c and held_out(s, c, b) == held]


def _sdf(shape, x, y, r):
    """Signed distance (pixels, negative inside), y pointing down. x, y: (N,64,64), r: (N,1,1)."""
    if shape == 0:                                   # circle
        return np.hypot(x, y) - r
    if shape == 1:                                   # square
        h = r * 0.84
        return np.maximum(np.abs(x), np.abs(y)) - h
    if shape == 2:                                   # equilateral triangle, point up
        y = y - r * 0.12
        h = r * 0.56
        return np.maximum(np.abs(x) * 0.8660254 - y * 0.5, y) - h
    if shape == 3:                                   # five-pointed star
        R, k = r * 1.12, 0.46
        a = np.arctan2(x, -y)
        seg = np.pi / 5
        a = np.abs((a + seg) % (2 * seg) - seg)
        d = np.hypot(x, y)
        px, py = d * np.cos(a), d * np.sin(a)
        # edge from the tip (R,0) to the inner corner (k R cos(seg), k R sin(seg))
        ix, iy = k * R * np.cos(seg), k * R * np.sin(seg)
        ex, ey = ix - R, iy
        n = np.hypot(ex, ey)
        return ((px - R) * ey - py * ex) / n
    if shape == 4:                                   # ring
        return np.abs(np.hypot(x, y) - r * 0.78) - r * 0.24
    # heart (Quilez), unit heart spans about y in [0, 1.1]
    s = r * 1.72
    px, py = np.abs(x) / s, (r * 0.92 - y) / s
    d1 = np.sqrt((px - .25) ** 2 + (py - .75) ** 2) - np.sqrt(2) / 4
    m = 0.5 * np.maximum(px + py, 0)
    d2 = np.minimum(np.sqrt(px ** 2 + (py - 1) ** 2), np.hypot(px - m, py - m)) * np.sign(px - py)
    return np.where(px + py > 1, d1, d2) * s


def render(attrs, rng):
    """attrs: (N,5) ints shape, colour, background, size, position -> uint8 (N,64,64,3)."""
    N = len(attrs)
    out = np.empty((N, 64, 64, 3), np.uint8)
    g = np.arange(64, dtype=np.float32) + 0.5
    gy, gx = np.meshgrid(g, g, indexing="ij")
    for shape in range(6):
        idx = np.where(attrs[:, 0] == shape)[0]
        for i in range(0, len(idx), 256):
            j = idx[i:i + 256]
            a, n = attrs[j], len(j)
            u = lambda lo, hi: rng.uniform(lo, hi, (n, 1, 1)).astype(np.float32)
            lo = np.array([RADIUS[k][0] for k in a[:, 3]], np.float32)[:, None, None]
            hi = np.array([RADIUS[k][1] for k in a[:, 3]], np.float32)[:, None, None]
            off = np.array([OFFSET[k] for k in a[:, 3]], np.float32)[:, None, None]
            r = lo + (hi - lo) * u(0, 1)
            cx = 32 + (a[:, 4] % 3 - 1)[:, None, None] * off + u(-1.5, 1.5)
            cy = 32 + (a[:, 4] // 3 - 1)[:, None, None] * off + u(-1.5, 1.5)
            th = u(-.14, .14)
            x, y = gx - cx, gy - cy
            x, y = x * np.cos(th) + y * np.sin(th), y * np.cos(th) - x * np.sin(th)
            d = _sdf(shape, x, y, r)
            alpha = np.clip(0.5 - d, 0, 1)[..., None]
            shadow = 0.22 / (1 + np.exp(np.clip((_sdf(shape, x - 1.2, y - 2.2, r)) / 1.1, -30, 30)))[..., None]
            jit = lambda: rng.uniform(-.025, .025, (n, 1, 1, 3)).astype(np.float32)
            bg = PALETTE[a[:, 2]][:, None, None] + jit()
            bg = bg * (1.05 - .10 * gy / 64)[None, ..., None]            # lit from above
            fg = PALETTE[a[:, 1]][:, None, None] + jit()
            fg = fg * (1.0 - .10 * np.clip(y / r, -1, 1))[..., None] + .03 * np.clip(-y / r, 0, 1)[..., None]
            img = bg * (1 - shadow) * (1 - alpha) + fg * alpha
            out[j] = (np.clip(img, 0, 1) * 255 + .5).astype(np.uint8)
    return out


def sample_attrs(n, rng, held=False):
    c = np.array(combos(held))
    a = np.empty((n, 5), np.int64)
    a[:, :3] = c[rng.integers(0, len(c), n)]
    a[:, 3] = rng.choice(3, n, p=[.3, .4, .3])
    a[:, 4] = rng.integers(0, 9, n)
    a[rng.random(n) < .25, 4] = 4                                        # more centred ones
    return a


_SYN = {"circle": ["circle", "circle", "disc", "dot"], "square": ["square", "square", "box"],
        "triangle": ["triangle"], "star": ["star"], "ring": ["ring", "ring", "donut"], "heart": ["heart"],
        "small": ["small", "small", "little", "tiny"], "large": ["large", "large", "big", "huge"],
        "medium": ["", "", "medium"], "purple": ["purple", "purple", "violet"], "yellow": ["yellow"]}
_POS = {"top left": ["in the top left corner", "at the top left", "in the upper left corner"],
        "top right": ["in the top right corner", "at the top right", "in the upper right corner"],
        "bottom left": ["in the bottom left corner", "at the bottom left", "in the lower left corner"],
        "bottom right": ["in the bottom right corner", "at the bottom right", "in the lower right corner"],
        "top": ["at the top", "on top"], "bottom": ["at the bottom", "below"],
        "left": ["on the left", "at the left side"], "right": ["on the right", "at the right side"],
        "center": ["in the center", "in the middle", "centered"]}
_PRE = ["", "", "", "a picture of ", "an image of ", "a drawing of ", "a photo of ", "an icon of ", "an illustration of "]
_ADJ = ["", "", "", "", "plain ", "solid ", "bright "]


def caption(attr, rng, full=False):
    """A caption and the mask of attributes it names (shape, colour, background, size, position)."""
    pick = lambda l: l[rng.integers(len(l))]
    syn = lambda w: pick(_SYN.get(w, [w]))
    s, c, b, z, p = attr
    use_b = full or rng.random() < .9
    use_c = full or rng.random() < .95
    use_z = (full and z != 1) or (not full and rng.random() < .6)
    use_p = full or rng.random() < .6
    size = syn(SIZES[z]) if use_z else ""
    words = [w for w in (size, syn(CNAMES[c]) if use_c else "", syn(SHAPES[s])) if w]
    pos = pick(_POS[POSITIONS[p]]) if use_p else ""
    back = syn(CNAMES[b]) if use_b else ""
    art = pick(["a ", "a ", "one ", ""])
    if art == "a " and words[0][0] in "aeiou":
        art = "an "
    obj = art + " ".join(words)
    k = rng.random()
    aj = pick(_ADJ)
    if back:
        an = "an " if (aj + back)[0] in "aeiou" else "a "
        if k < .55:
            t = pick(_PRE) + obj + (" " + pos if pos else "") + pick([" on ", " on ", " over ", " against "]) + an + aj + back + " background"
        elif k < .7:
            t = pick(_PRE) + obj + pick([" on ", " over "]) + an + aj + back + " background" + (", " + pos if pos else "")
        elif k < .8:
            t = pick(_PRE) + obj + pick([" on ", " on a field of "]) + back + (" " + pos if pos else "")
        elif k < .9:
            t = " ".join(words) + ", " + back + " background" + (", " + pos if pos else "")
        else:
            t = an + aj + back + " background with " + obj + (" " + pos if pos else "")
    else:
        t = pick(_PRE) + obj + (" " + pos if pos else "")
    return t, (1, int(use_c), int(use_b), int(bool(size)), int(use_p))


def plain_caption(attr):
    """The canonical wording, used for evaluation next to the varied one."""
    s, c, b, z, p = attr
    size = "" if z == 1 else SIZES[z] + " "
    w = size + CNAMES[c] + " " + SHAPES[s]
    an = lambda q: ("an " if q[0] in "aeiou" else "a ") + q
    return f"{an(w)} {_POS[POSITIONS[p]][0]} on {an(CNAMES[b])} background"


def dataset(n, seed, held=False, full=False):
    rng = np.random.default_rng(seed)
    a = sample_attrs(n, rng, held)
    img = render(a, rng)
    cm = [caption(x, rng, full) for x in a]
    return img, a, [c for c, _ in cm], np.array([m for _, m in cm])
