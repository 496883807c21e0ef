"""What Press et al. 2022 (ALiBi, arXiv:2108.12409) say, as tests on rows. Imports no torch."""

from experiments.claims.claim import Claim, Published, at_least, at_most
from experiments.claims.places import CAUSAL, L_64, OTHER_L, SHORTER, SPEED, STRIDE
from experiments.claims.quantities import Ratio, Term, Worst

SOURCE = "Press et al. 2022 (arXiv:2108.12409)"
CURVES = Published("press2022alibi", ("2", "3", "4"))
STRIDE_1 = "sliding(stride=1)"
SIZE = "Theirs has 247 M parameters and words for tokens, ours under 1 M and bytes."


def over_start(scheme: str, at: float) -> Ratio:
    """Perplexity at a multiple of the training length over that at the training length."""
    return Term(scheme, at) / Term(scheme)


def speed(scheme: str) -> Term:
    return Term(scheme, metric="tokens/s", protocol="training")


PRESS = (
    Claim(
        "A1",
        "sinusoidal is 5 % worse by 1.4 L",
        "Sinusoidal positions are 5 % worse than at the training length by 1.4 L.",
        f"{SOURCE}, tables 2 and 3",
        "Nonoverlap perplexity at 1.4 L over that at L is at least 1.05.",
        "a ratio below 1.05",
        f"{SIZE} Every token of a piece is scored, of which 29 % lie beyond the first L at 1.4 L, in theirs as in ours. At "
        "a training length of 3,072 they have no length near 1.4 L.",
        (at_least(over_start("sinusoidal", 1.4), 1.05),),
        CAUSAL | OTHER_L,
        (CURVES,),
    ),
    Claim(
        "A2",
        "RoPE is 5 % worse between 1.3 L and 2 L",
        "RoPE gains a little beyond the training length, then is 5 % worse between 1.3 L and 2 L.",
        f"{SOURCE}, tables 2 to 4",
        "A bracket: nonoverlap perplexity over that at L is at most 1.05 at 1.3 L, and at least 1.05 at 2 L. That RoPE "
        "first gains is left out: at 1.3 L, our first length beyond L, one of their models gains and one has lost again.",
        "a blow-up before 1.3 L or after 2 L",
        f"{SIZE} Every token of a piece is scored, of which 23 % lie beyond the first L at 1.3 L and half at 2 L, in theirs "
        "as in ours. Their models pass 5 % between 1.3 L and 1.4 L (trained on 1,024 words), 1.8 L and 2 L (on 512), and "
        "by a hair at 2 L (on 3,072).",
        (at_most(over_start("rope", 1.3), 1.05), at_least(over_start("rope", 2), 1.05)),
        CAUSAL | L_64,
        (CURVES,),
    ),
    Claim(
        "A3",
        "T5 bias improves to 2 L, is 5 % worse between 3.6 L and 7 L",
        "The T5 bias improves up to about 2 L and is 5 % worse between 3.6 L and 7 L.",
        f"{SOURCE}, tables 2 to 4",
        "Nonoverlap perplexity over that at L is at most 1 at 2 L, at most 1.05 at 3.6 L, and at least 1.05 at 7 L.",
        "a rise at 2 L, a blow-up before 3.6 L, or none by 7 L",
        f"{SIZE} The bias is log-spaced up to 128 tokens and one for all beyond, whatever the training length: at theirs "
        f"of 512 and more it has seen all its buckets far from their edge, at 128 it has just.",
        (at_most(over_start("t5", 2), 1), at_most(over_start("t5", 3.6), 1.05), at_least(over_start("t5", 7), 1.05)),
        CAUSAL | L_64,
        (CURVES,),
    ),
    Claim(
        "A4",
        "ALiBi never gets worse",
        "ALiBi never gets worse than at the training length, up to 5 L and beyond.",
        f"{SOURCE}, tables 2 to 4",
        "For each seed the length beyond L with the highest nonoverlap perplexity is taken, and its ratio to L is at most "
        "1.005: half a percent, since their own tables waver by less than that right behind L. Lengths must reach 5 L.",
        "some length that is worse than L by half a percent",
        "Under nonoverlap a model that uses nothing beyond L improves too (A7): not to get worse is not to make use.",
        (at_most(Worst(Term("alibi"), up_to=5), 1.005),),
        CAUSAL | OTHER_L,
        (CURVES,),
    ),
    Claim(
        "A5",
        "ALiBi ≤ T5 < RoPE < sinusoidal from 2 L on",
        "At 2 L and beyond: ALiBi is at least as good as the T5 bias, that better than RoPE, that better than sinusoidal.",
        f"{SOURCE}, tables 2 to 4",
        "A chain of nonoverlap perplexities on the same tokens, at 2 L and at 4 L: each ratio of neighbours is at most 1.",
        "one pair of neighbours in the other order, at 2 L or at 4 L",
        "Perplexities, not ratios to L: who is better at L starts ahead.",
        tuple(
            at_most(Term(better, at) / Term(worse, at), 1)
            for at in (2, 4)
            for better, worse in (("alibi", "t5"), ("t5", "rope"), ("rope", "sinusoidal"))
        ),
        CAUSAL | L_64,
        (CURVES,),
    ),
    Claim(
        "A7",
        "with stride 1 ALiBi is flat within 2.6 %",
        "With stride 1, where every token but those of the first window has a full one, ALiBi is flat within 2.6 %: what it "
        "gains under nonoverlap is the early-token curse.",
        f"{SOURCE}, tables 13 to 15",
        "Sliding window, stride 1: for each seed the length whose perplexity is farthest from that at L, up or down, is off "
        "by a factor of at most 1.0265, which rounds to 2.6 %. Lengths must reach 3 L.",
        "a length that is better or worse than L by more than 2.6 %",
        "2.6 % is their largest difference, rounded. In our segments of 16 L the first window is scored whole, a quarter of "
        "the tokens at 4 L: it weakens gains and harm alike.",
        (at_most(Worst(Term("alibi", protocol=STRIDE_1), up_to=3, either_way=True), 1.0265),),
        STRIDE,
        (Published("press2022alibi", ("13-15",), protocol=STRIDE_1),),
    ),
    Claim(
        "A8",
        "training speed: ALiBi 0.99, RoPE 0.70, T5 0.51 of sinusoidal",
        "In training ALiBi has at least 0.99 of the speed of sinusoidal positions; RoPE has 0.70 and the T5 bias 0.51 of "
        "it, on sequences of 512 words.",
        f"{SOURCE}, table 1",
        "Tokens per second of our training steps, causal, over those of sinusoidal in the same round; rounds stand for "
        "seeds. ALiBi: at least 0.99. RoPE and T5: nearer to the published ratio than to 1, at most sqrt(0.70) = 0.84 and "
        "sqrt(0.51) = 0.71.",
        "ALiBi slower than 0.99, RoPE faster than 0.84, or T5 faster than 0.71 of sinusoidal",
        "It is a claim about implementations as much as about schemes: theirs in fairseq on a V100, ours on the machine "
        "that results/speed names.",
        (
            at_least(speed("alibi") / speed("sinusoidal"), 0.99),
            at_most(speed("rope") / speed("sinusoidal"), 0.84),
            at_most(speed("t5") / speed("sinusoidal"), 0.71),
        ),
        SPEED,
        (Published("press2022alibi", ("1",), metric="train_words_per_s", protocol="training"),),
    ),
    Claim(
        "A10",
        "at L ≤ 128 sinusoidal is at least as good as ALiBi",
        "Trained and evaluated at a length of 128 or less, sinusoidal positions are at least as good as ALiBi.",
        f"{SOURCE}, table 5",
        "Nonoverlap perplexity at L of sinusoidal over ALiBi is at most 1; each training length decides for itself.",
        "ALiBi ahead at L",
        "128 of their words are over 600 of our bytes: it is the number of tokens that is alike, not the amount of text.",
        (at_most(Term("sinusoidal") / Term("alibi"), 1),),
        CAUSAL | SHORTER,
        (Published("press2022alibi", ("5",), train_lens=(64, 128)),),
    ),
)
