"""A rank that is no run: it adds up the ranks with the others, and writes what it saw into the folder it is given."""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

folder = Path(sys.argv[1])
dist.init_process_group("gloo")
total = torch.tensor(float(dist.get_rank() + 1))
dist.all_reduce(total)
names = ("WORLD_SIZE", "LOCAL_RANK", "JUPYTER_GPT_HOME")
(folder / f"rank-{dist.get_rank()}").write_text(" ".join([str(int(total)), *(os.environ[name] for name in names)]))
dist_rank = dist.get_rank()
dist.destroy_process_group()
rest = sys.argv[2:]
if "lost" in rest and dist_rank == 1 and not (folder / "lost").exists():
    (folder / "lost").touch()
    os.kill(os.getpid(), signal.SIGKILL)
if "fails" in rest:
    sys.exit("this rank fails")
time.sleep(next((float(each) for each in rest if each.isdecimal()), 0))
