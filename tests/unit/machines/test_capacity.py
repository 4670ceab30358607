import pytest

from uhm_machines.capacity import Capacity
from uhm_machines.errors import CapacityExhausted


def test_machines_and_memory_are_bounded():
    capacity = Capacity(machines=2, memory_mib=1000)
    capacity.take("a", memory_mib=600)
    with pytest.raises(CapacityExhausted, match="500 MiB do not fit: running machines have 600 of 1000 MiB"):
        capacity.take("b", memory_mib=500)
    capacity.take("b", memory_mib=400)
    capacity.release("a")
    capacity.release("a")
    capacity.take("c", memory_mib=1)
    with pytest.raises(CapacityExhausted, match="2 machines run"):
        capacity.take("d", memory_mib=1)
