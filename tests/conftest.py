"""What holds for all tests."""

import torch

# Peers in tests are few and small: waking a second thread takes longer than their work, and up to 50 times longer where other
# tests run on the same cores. The trainer of a live node and the simulator's engines compute on one thread too.
torch.set_num_threads(1)
