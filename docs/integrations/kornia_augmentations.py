"""Put augmentations of kornia after the camera."""

from given import SIZE, contexts, objects
from kornia.augmentation import AugmentationSequential, ColorJiggle, RandomErasing, RandomPlasmaShadow
from torch.utils.data import DataLoader

from kornia_cag import CAGCollate, PairSampler, SceneRange, Unkeyed
from kornia_cag.loading.batch import Pair

augmentations = AugmentationSequential(
    ColorJiggle(0.1, 0.1, 0.1, 0.05, p=0.5),
    RandomPlasmaShadow(p=0.3),
    RandomErasing(scale=(0.02, 0.1), p=0.2),
    data_keys=["input"],
)
ranges = SceneRange(finish=(Unkeyed(augmentations),))


def loader(batch_size: int = 64) -> DataLoader[Pair]:
    """A loader of composed and augmented batches."""
    pairs = PairSampler(objects.labels, len(contexts), batch_size=batch_size)
    collate = CAGCollate(objects, contexts, SIZE, ranges=ranges)
    return DataLoader(pairs.dataset, batch_sampler=pairs, collate_fn=collate)
