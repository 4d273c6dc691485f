"""Names of GGUF files."""

from peregrine_router.launch.gguf_names import first_files, set_pattern

NAMES = [
    "README.md",
    "falcon-7b-q2_k.gguf",
    "falcon-7b-Q6_K.gguf",
    "falcon-7b.Q4_0_4_4.gguf",
    "falcon-7b.Q4_K_M-00002-of-00002.gguf",
    "falcon-7b.Q4_K_M-00001-of-00002.gguf",
    "falcon-7b.IQ4_XS.gguf",
    "falcon-7b-bf16.gguf",
    "falcon-7b-q4_0.gguf",
]


def test_the_first_file_of_each_set_is_listed() -> None:
    """Types that stay at 4 bits first, then what is read, then all else; a set is one."""
    assert first_files(NAMES) == [
        "falcon-7b-q4_0.gguf",
        "falcon-7b.Q4_K_M-00001-of-00002.gguf",
        "falcon-7b-Q6_K.gguf",
        "falcon-7b-bf16.gguf",
        "falcon-7b-q2_k.gguf",
        "falcon-7b.IQ4_XS.gguf",
        "falcon-7b.Q4_0_4_4.gguf",
    ]


def test_a_set_has_one_pattern() -> None:
    """In a folder of the repository, too; a file that is whole is its own."""
    assert set_pattern("Q8_0/falcon-00002-of-00013.gguf") == "Q8_0/falcon-*-of-00013.gguf"
    assert set_pattern("falcon.gguf") == "falcon.gguf"
