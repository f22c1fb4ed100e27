"""CPU loaders that make one scene at a time, with OpenCV or Pillow, for comparison with composing on the device.

Both are a ``collate_fn`` for the rows of a :class:`kornia_cag.PairSampler`, run in any number of workers, and make the
scenes of a ``SceneRange``, limited to ``RIGID_SIGNS``: one perspective warp of a mip level over a crop of a context,
colour matrix and illumination, blur, noise. Neither makes masks or boxes.

OpenCV is written to be fast: scalars in plain Python, 8-bit pictures up to the light, all colour in one matrix, applied
once to the composite, separable filters where possible, none if no blur was drawn, reused buffers, contexts with four
channels (which it warps faster than three), noise from its own generator. Pillow follows typical torchvision loaders,
call by call: ``transform``, ``resize``, ``paste``, enhancements, ``filter``, then NumPy.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from kornia_cag.banks.contexts import ContextBank
from kornia_cag.banks.objects import ObjectBank
from kornia_cag.bench.draws import Blur, Director, Draw, Light, Shot, fresh, rotation
from kornia_cag.bench.opencv import (
    Array,
    Bytes,
    Camera,
    Noise,
    cropped,
    generator,
    levels,
    motion,
    normals,
    opencv,
    places,
    taps,
    warped,
)  # fmt: skip
from kornia_cag.sampling.rows import Rows
from kornia_cag.scenes.ranges import SceneRange


class OpenCVCollate:
    """A ``collate_fn``: rows to images (b, 3, h, w) in [0, 1], and labels, by OpenCV.

    Raises:
        InputError: without OpenCV, and for ranges beyond ``RIGID_SIGNS``.
    """

    def __init__(self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange) -> None:
        self.camera = Camera(size, ranges.camera.taps)
        self.shot, self.labels = Director(objects, contexts, size, ranges), objects.labels.cpu()
        self.objects, self.contexts = levels(objects.pyramid), levels(contexts.pyramid)
        self.rng: np.random.Generator | None = None  # each worker makes its own

    def __call__(self, rows: Rows) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        """Compose the scenes of the rows one by one."""
        self.rng = self.rng or generator()
        images = np.empty((len(rows), self.shot.size, self.shot.size, 3), np.float32)
        for image, obj, ctx in zip(images, rows.objects.tolist(), rows.contexts.tolist(), strict=True):
            self.scene(obj, ctx, fresh(self.rng), normals, image)
        return torch.from_numpy(images).permute(0, 3, 1, 2), self.labels[rows.objects]

    def scene(self, obj: int, ctx: int, draw: Draw, noise: Noise, out: Array) -> None:
        """Make one finished scene in ``out``, (h, w, 3)."""
        shot = self.shot(draw)
        self.camera(self._over(obj, ctx, shot), shot.around, noise, out)

    def _over(self, obj: int, ctx: int, shot: Shot) -> Bytes:
        """The warped object over the crop of its context, (h, w, 3)."""
        cv2, size = opencv(), self.shot.size
        layer = warped(self.objects[shot.level][obj], shot.warp, (0, 0, size, size))
        behind = cropped(self.contexts[shot.around.context_level][ctx], shot.around, size)
        clear = cv2.cvtColor(cv2.bitwise_not(cv2.extractChannel(layer, 3)), cv2.COLOR_GRAY2RGB)
        behind = cv2.multiply(cv2.cvtColor(behind, cv2.COLOR_RGBA2RGB), clear, scale=1 / 255)
        over: Bytes = cv2.add(cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), behind)
        return over


class PillowCollate:
    """A ``collate_fn``: rows to images (b, 3, h, w) in [0, 1], and labels, by Pillow and NumPy.

    Pillow's own filters replace the point-spread functions: its Gaussian is three boxes, its kernels are at most 5×5.

    Raises:
        InputError: for ranges beyond ``RIGID_SIGNS``.
    """

    def __init__(self, objects: ObjectBank, contexts: ContextBank, size: int, ranges: SceneRange) -> None:
        self.shot, self.labels = Director(objects, contexts, size, ranges), objects.labels.cpu()
        self.objects = [[_straight(p) for p in level] for level in levels(objects.pyramid)]
        self.contexts = [[Image.fromarray(p[..., :3]) for p in level] for level in levels(contexts.pyramid)]
        self.x, self.y = places(size)
        self.tap_x, self.tap_y = taps(5)
        self.grey = Image.new("RGB", (size, size), (128, 128, 128))
        self.rng: np.random.Generator | None = None  # each worker makes its own

    def __call__(self, rows: Rows) -> tuple[Float[Tensor, "b 3 h w"], Int[Tensor, " b"]]:
        """Compose the scenes of the rows one by one."""
        self.rng = rng = self.rng or np.random.default_rng()
        images = np.empty((len(rows), self.shot.size, self.shot.size, 3), np.float32)
        for image, obj, ctx in zip(images, rows.objects.tolist(), rows.contexts.tolist(), strict=True):
            self.scene(obj, ctx, fresh(rng), lambda field: rng.standard_normal(dtype=np.float32, out=field), image)
        return torch.from_numpy(images).permute(0, 3, 1, 2), self.labels[rows.objects]

    def scene(self, obj: int, ctx: int, draw: Draw, noise: Noise, out: Array) -> None:
        """Make one finished scene in ``out``, (h, w, 3)."""
        shot = self.shot(draw)
        light, blur = shot.around.light, shot.around.blur
        picture = self._colors(self._over(obj, ctx, shot), light)
        if blur is not None:
            picture = picture.filter(self._filter(blur))
        (slope_x, slope_y), gains = light.slope, np.array(light.gains, np.float32) / 255
        plane = np.maximum(1 + slope_x * self.x + slope_y * self.y, 0)
        lit = np.asarray(picture, np.float32) * (plane[..., None] * gains)
        noise(out.reshape(len(out), -1))
        out *= np.float32(shot.around.noise)
        out += np.clip(lit, 0, 1, out=lit)
        np.clip(out, 0, 1, out=out)

    def _over(self, obj: int, ctx: int, shot: Shot) -> Image.Image:
        """The warped object over the crop of its context."""
        size, side = (self.shot.size, self.shot.size), self.shot.size
        warp = tuple(m / shot.warp[8] for m in shot.warp[:8])
        layer = self.objects[shot.level][obj].transform(
            size, Image.Transform.PERSPECTIVE, warp, Image.Resampling.BILINEAR
        )
        left, dx, top, dy = shot.around.crop
        context = self.contexts[shot.around.context_level][ctx]
        first, last, bottom = (min(max(v, 0), context.width) for v in (left, left + side * dx, top + side * dy))
        box = (min(first, last), top, max(first, last), bottom)
        behind = context.resize(size, Image.Resampling.BILINEAR, box)
        if dx < 0:
            behind = behind.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        behind.paste(layer, (0, 0), layer)
        return behind

    def _colors(self, picture: Image.Image, light: Light) -> Image.Image:
        """Hue, saturation, contrast around mid-grey and veil; gains do not fit into 8 bits."""
        same, right, left = rotation(light.hue)
        picture = picture.convert("RGB", (same, right, left, 0, left, same, right, 0, right, left, same, 0))
        picture = ImageEnhance.Color(picture).enhance(light.saturation)
        picture = Image.blend(self.grey, picture, light.contrast)
        return Image.blend(picture, Image.new("RGB", picture.size, 3 * (round(255 * light.level),)), light.veil)

    def _filter(self, blur: Blur) -> ImageFilter.Filter:
        if blur.kind == "gaussian":
            return ImageFilter.GaussianBlur(blur.first)
        if blur.kind == "box":
            return ImageFilter.BoxBlur((0.5 * blur.first - 0.5, 0.5 * blur.second - 0.5))
        return ImageFilter.Kernel((5, 5), motion(blur, self.tap_x, self.tap_y).ravel().tolist())


def _straight(picture: Bytes) -> Image.Image:
    """Convert a premultiplied picture, (s, s, 4), to a Pillow image with straight alpha."""
    return Image.frombytes("RGBa", picture.shape[:2], picture.tobytes()).convert("RGBA")
