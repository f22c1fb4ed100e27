import pytest
import torch
import torch.nn.functional as F

from kornia_cag import InputError
from kornia_cag.adversary.losses import cross_entropy, dlr, kl, margin

LOGITS = torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.5, 0.0, -2.0, 1.0]])
LABELS = torch.tensor([0, 1])


def test_margin_and_dlr_by_hand():
    torch.testing.assert_close(margin(LOGITS, LABELS), torch.tensor([2.0 - 3.0, 1.0 - 0.0]))
    torch.testing.assert_close(dlr(LOGITS, LABELS), torch.tensor([-1.0 / (3 - 1), 1.0 / (1 - 0)]))


def test_margin_and_dlr_are_positive_where_the_model_errs():
    logits = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 5
    wrong = logits.argmax(dim=1) != labels
    assert torch.equal(margin(logits, labels) > 0, wrong)
    assert torch.equal(dlr(logits, labels) > 0, wrong)


def test_dlr_knows_no_scale():
    torch.testing.assert_close(dlr(100 * LOGITS + 7, LABELS), dlr(LOGITS, LABELS))


def test_kl_is_the_divergence_from_the_clean_probabilities():
    clean = LOGITS.flip(1)
    p = clean.softmax(1)
    want = (p * (p.log() - LOGITS.softmax(1).log())).sum(1)
    torch.testing.assert_close(kl(LOGITS, clean), want)
    torch.testing.assert_close(kl(LOGITS, LOGITS), torch.zeros(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_ties_in_half_precision_are_finite(dtype):
    logits = torch.tensor([[2.0, 2, 2, 1], [2, 2, 2, 1]], dtype=dtype)
    labels = torch.tensor([0, 3])
    assert torch.equal(margin(logits, labels), torch.tensor([0.0, 1.0]))
    assert dlr(logits, labels).isfinite().all()
    assert torch.equal(kl(logits, logits), torch.zeros(2))


def test_gradient_of_kl_is_right():
    assert torch.autograd.gradcheck(lambda x: kl(x, LOGITS.flip(1).double()), LOGITS.double().requires_grad_())


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_gradients_are_right(loss):
    logits = LOGITS.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, LABELS), logits)
    (gradient,) = torch.autograd.grad(loss(logits, LABELS).sum(), logits)
    assert (gradient.gather(1, LABELS[:, None]) < 0).all()  # the loss of a class falls with its logit


def test_cross_entropy_is_torchs():
    assert torch.equal(cross_entropy(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS, reduction="none"))


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("loss", "output", "words"),
    [
        (margin, torch.zeros(2, 1), "at least 2 classes"),
        (dlr, torch.zeros(2, 2), "at least 3 classes"),
        (kl, torch.zeros(2, 3, 4), r"\(2, classes\)"),
        (cross_entropy, {"logits": 1}, r"\(2, classes\)"),
    ],
)
def test_other_outputs_are_refused(loss, output, words):
    with pytest.raises(InputError, match=f"^model output: expected .*{words}.*Give another kind of output its own"):
        loss(output, torch.zeros(2, dtype=torch.int64) if loss is not kl else torch.zeros(2, 3))
