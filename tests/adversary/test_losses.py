import pytest
import torch
import torch.nn.functional as F

from kornia_cag import InputError
from kornia_cag.adversary.losses import class_not_shown, cross_entropy, dlr, kl, margin, shows

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


# --- several objects


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_of_one_object_labels_may_have_a_second_dimension(loss):
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    assert torch.equal(loss(logits, labels[:, None]), loss(logits, labels))


def test_the_loss_of_several_objects_is_the_mean():
    logits, labels = torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.5, 0.0, -2.0, 1.0]]), torch.tensor([[0, 2], [3, 3]])
    want = (cross_entropy(logits, labels[:, 0]) + cross_entropy(logits, labels[:, 1])) / 2
    torch.testing.assert_close(cross_entropy(logits, labels), want)
    # what is not shown: class 1 of logit 1, and class 0 of logit 0.5
    torch.testing.assert_close(margin(logits, labels), torch.tensor([((1.0 - 3) + (1.0 - 2)) / 2, 0.5 - 1]))
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-1.5 / (3 - 1), -0.5 / (1 - 0)]))


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_of_two_objects_both_are_attacked(loss):
    """Neither takes the other for the class that it is mistaken for, or their gradients would cancel."""
    logits = torch.tensor([[5.0, 4.0, 1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor([[0, 1]])), logits)
    (gradient,) = torch.autograd.grad(loss(logits, torch.tensor([[0, 1]])).sum(), logits)
    assert gradient[0, :2].sum() < 0
    assert gradient[0, 2] > 0


def test_classes_that_are_not_shown():
    """Each as often as the others, over all that a sample does not show; of one object, by the known formula."""
    logits = torch.randn(4000, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(5, (4000, 2), generator=torch.Generator().manual_seed(1))
    drawn = torch.linspace(0, 1, 4001)[:-1]
    for of in (drawn, None):
        wrong = class_not_shown(logits, labels, of)
        assert not shows(labels, wrong).any()
    counts = torch.bincount(
        class_not_shown(logits[:3000], torch.tensor([[1, 3]]).expand(3000, 2), drawn[:3000] * 4 / 3)
    )
    assert counts.tolist() == pytest.approx([1000, 0, 1000, 0, 1000], abs=1)
    one = labels[:, 0]
    want = (one + 1 + (drawn * 4).long()) % 5
    assert torch.equal(class_not_shown(logits, one, drawn), want)
    assert torch.equal(class_not_shown(logits, one[:, None], drawn), want)


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize("loss", [margin, dlr])
def test_some_class_must_not_be_shown(loss):
    with pytest.raises(InputError, match="model output: expected logits of at least 4 classes"):
        loss(torch.zeros(2, 3), torch.tensor([[0, 1, 2], [0, 1, 2]]))
