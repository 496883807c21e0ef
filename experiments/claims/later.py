"""What other papers say, as tests on rows. Imports no torch."""

from experiments.claims.claim import Claim, Published, at_least, at_most
from experiments.claims.places import BOTH, CAUSAL, MASKED, TIED
from experiments.claims.quantities import Largest, Removed, Steps, Term


def masked(scheme: str, at: float = 1, extension: str = "none") -> Term:
    return Term(scheme, at, extension, objective="mlm")


def tiling_removes(continued: str) -> Removed:
    return Removed(masked("learned", 8, continued), masked("learned", 8, "tile"), masked("learned"))


def tied(scheme: str) -> Term:
    return Term(scheme, experiment="tied")


def untied(scheme: str, at: float = 1) -> Term:
    return Term(scheme, at, experiment="causal")


LATER = (
    Claim(
        "K3",
        "a window of L is at least as good as ALiBi beyond L",
        "Beyond the training length, attention to the last L tokens is at least as good as ALiBi.",
        "Chi et al. 2022 (arXiv:2205.09921), figure 5",
        "The same ALiBi weights with the mask and without, same targets, at 8 L: the mask costs at most half a percent. The "
        "same weights, because a window around another scheme would also show who is better at L (N1, D1).",
        "ALiBi losing more than half a percent to the mask: it does make use of what lies beyond L",
        "Theirs is a figure without numbers, loss by position. Ours is one length, 64 targets a segment.",
        (at_most(Term("alibi", 8, "window", "same_targets") / Term("alibi", 8, protocol="same_targets"), 1.005),),
        CAUSAL,
    ),
    Claim(
        "C3",
        "an encoder with RoPE collapses at 4 to 8 L, with ALiBi not",
        "An encoder with RoPE collapses at 4 to 8 times its training length, one with ALiBi does not.",
        "Veisi et al. 2025 (arXiv:2503.08067), table 3",
        "Nonoverlap perplexity of the masked LM over that at L: RoPE at least 1.05 at 4 L and at least 2 at 8 L, ALiBi at "
        "most 1.05 at 8 L.",
        "RoPE that is sound at 4 L, or less than twice as bad at 8 L, or ALiBi that blows up",
        "Theirs is retrieval (NDCG@10) after fine-tuning; perplexity stands in for it here, and no ratio of theirs beside "
        "ours.",
        (
            at_least(masked("rope", 4) / masked("rope"), 1.05),
            at_least(masked("rope", 8) / masked("rope"), 2),
            at_most(masked("alibi", 8) / masked("alibi"), 1.05),
        ),
        MASKED,
        (Published("veisi2025cable", ("3",), metric="ndcg_at_10_percent"),),
    ),
    Claim(
        "X1",
        "a mask at test time alone repairs RoPE at 4 L",
        "A mask at test time alone brings RoPE at 4 L from 11.5 times its perplexity at L to 1.005 times.",
        "Sun et al. 2022 (arXiv:2212.10554), section 4.2, table 2 and the ablation",
        "Nonoverlap perplexity at 4 L over that at L: RoPE at least 2 (broken), RoPE with the window mask at most 1.005 "
        "(repaired). Their protocol: the first 4,096 tokens of a document are cut into pieces, and all of them are scored.",
        "RoPE that is less than twice as bad at 4 L, or a mask that leaves more than half a percent",
        "Their mask works by blocks, ours by token. In longer pieces fewer tokens are early ones, which pays for a part of "
        "what the mask costs, in theirs as in ours. At 4 L, RoPE without a mask has 1.4 to 11.5 times its perplexity at L "
        "in papers' tables: twice is asked for, not 11.5 times.",
        (at_least(Term("rope", 4) / Term("rope"), 2), at_most(Term("rope", 4, "window") / Term("rope"), 1.005)),
        CAUSAL,
        (Published("sun2022lex", ("2",)), Published("sun2022lex", ("ablation",), metric="ratio")),
    ),
    Claim(
        "N1",
        "in distribution RoPE < NoPE < ALiBi",
        "At the training length a causal model without positions is worse than one with RoPE, and better than one with "
        "ALiBi.",
        "Kazemnejad et al. 2023 (arXiv:2305.19466), appendix F",
        "A chain of nonoverlap perplexities at L on the same tokens: RoPE over NoPE and NoPE over ALiBi are at most 1.",
        "NoPE better than RoPE, or ALiBi better than NoPE",
        "Their models are far larger, rotate a quarter of each head, and are scored on the last tokens; NoPE has to learn "
        "from the causal mask where it is, which takes training that a small model does not get.",
        (at_most(Term("rope") / Term("nope"), 1), at_most(Term("nope") / Term("alibi"), 1)),
        CAUSAL,
        (Published("kazemnejad2023nope", ("3-4 bucket 3250-3500",)),),
    ),
    Claim(
        "H1",
        "NoPE: causal within 5 %, masked LM far worse",
        "Without positions a causal LM comes within 5 % of one with, a masked LM is 36 times worse.",
        "Haviv et al. 2022 (arXiv:2203.16634), tables 1 and 4",
        "Nonoverlap perplexity at L of NoPE over sinusoidal, within each objective: causal at most 1.05, masked at least 2 "
        "(far worse). Perplexities of the two objectives are not compared.",
        "a causal NoPE more than 5 % behind, or a masked one less than twice as bad",
        "36 times needs a large vocabulary: of 256 bytes, counting them alone leaves about 20 to choose from. Their models "
        "are far larger, and a causal mask tells where a token is only to a model that has learned to count.",
        (at_most(Term("nope") / Term("sinusoidal"), 1.05), at_least(masked("nope") / masked("sinusoidal"), 2)),
        BOTH,
        (Published("haviv2022nope", ("4",)),),
    ),
    Claim(
        "L1",
        "tiling a learned table removes its blow-up",
        "Tiling a learned table beyond its end removes nearly all of the blow-up: bits per character rise from 1.846 to "
        "10.299 without it, to 1.957 with it.",
        "Beltagy et al. 2020 (Longformer, arXiv:2004.05150), table 5",
        "Masked LM, nonoverlap, at 8 L: clamped to its last row, the table is at least 5 % worse than at L, and tiling "
        "takes away at least 0.9 of that, in log-perplexity.",
        "no blow-up when clamped, or tiling that leaves more than a tenth of it",
        "Under nonoverlap fewer early tokens pay for a percent or two of what tiling costs. A table has no number beyond "
        "its end here. Theirs was continued with random rows, which is worse than clamping: the blow-up is smaller here, "
        "what tiling removes weighs less, and the published share is that of another blow-up. Their model reads long inputs "
        "through windows of 512 tokens.",
        (
            at_least(masked("learned", 8, "clamp") / masked("learned"), 1.05),
            at_least(tiling_removes("clamp"), 0.9, theirs=tiling_removes("random")),
        ),
        MASKED,
        (Published("beltagy2020longformer", ("5",), metric="bpc"),),
    ),
    Claim(
        "R1",
        "in masked LM RoPE converges faster than learned positions",
        "In masked-LM pre-training RoPE converges faster than learned positions.",
        "Su et al. 2021 (RoFormer, arXiv:2104.09864), figure 3",
        "Training steps of RoPE over those of learned positions until both have the training loss that the worse of the two "
        "ends with, is at most 1; losses are means over a twentieth of all steps.",
        "learned positions that get there first",
        "Theirs is a figure without numbers, of models that went on for 100,000 steps. The step depends on the schedule: "
        "the learning rate has gone down to zero at the end of ours.",
        (at_most(Steps("rope", "learned"), 1),),
        MASKED,
    ),
    Claim(
        "T1",
        "tying the output changes less than the scheme does beyond L",
        "Tied or untied output embeddings change the loss less than the scheme does beyond the training length.",
        "Su 2023 (kexue.fm 9698)",
        "What tying does to nonoverlap log-perplexity at L, either way, for whichever of RoPE, ALiBi and sinusoidal it "
        "changes most, over what RoPE or ALiBi does at 4 L (untied): as a ratio of perplexity ratios, at most 1.",
        "tying that changes a scheme at L more than RoPE and ALiBi differ at 4 L",
        "One length and one pair of schemes stand for the scheme beyond L; sinusoidal differs from ALiBi by more.",
        (
            at_most(
                Largest("tying at L", tuple(tied(scheme) / untied(scheme) for scheme in ("rope", "alibi", "sinusoidal")))
                / Largest("rope or alibi at 4 L", (untied("rope", 4) / untied("alibi", 4),)),
                1,
            ),
        ),
        TIED,
    ),
    Claim(
        "D1",
        "in distribution ALiBi is clearly worse than RoPE",
        "At the training length ALiBi is clearly worse than RoPE (attributed to DeepSeek; no number published).",
        "Su 2024 (kexue.fm 10091)",
        "Nonoverlap perplexity at L of ALiBi over RoPE is at least 1.05: clearly means the 5 % that elsewhere means worse.",
        "ALiBi less than 5 % behind",
        "Hearsay without a number; Press et al. (tables 2 to 4) have ALiBi ahead, trained on 512 words and more.",
        (at_least(Term("alibi") / Term("rope"), 1.05),),
        CAUSAL,
    ),
)
