"""The table of devices."""

from peregrine_router.hardware import DEVICES, ROOFS, roof_of


def test_roofs_by_name() -> None:
    """The names that CUDA gives its devices; a CPU has none."""
    assert roof_of("NVIDIA H200") == ROOFS["H200"]
    assert roof_of("NVIDIA A100-SXM4-40GB") == ROOFS["A100-SXM4-40GB"] != roof_of("NVIDIA A100-SXM4-80GB")
    assert roof_of("NVIDIA A10G") == ROOFS["A10G"]
    assert roof_of("NVIDIA H100 80GB HBM3") == ROOFS["H100"] != roof_of("NVIDIA H100 PCIe")
    assert roof_of("") is None
    assert roof_of("Tesla T4") == ROOFS["T4"]
    assert roof_of("NVIDIA L40S") == ROOFS["L40S"] != roof_of("NVIDIA L4")
    assert roof_of("NVIDIA GeForce RTX 4090") == ROOFS["RTX 4090"]


def test_a_driver_gives_a_little_less_than_the_data_sheet() -> None:
    """A card of 24 GB has 24 GiB or as many GB on its chips, of which its driver keeps some."""
    for device in DEVICES:
        assert 0.9 < device.memory_bytes / (device.gigabytes * 1e9) < 1.07, device.name
        assert device.gibibytes < device.gigabytes
