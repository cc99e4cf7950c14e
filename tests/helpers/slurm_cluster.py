"""A Slurm cluster of two nodes on loopback, both of them this machine: munge, slurmctld and two slurmd, as root."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=5
ReturnToService=2
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=500
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=500
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def install() -> str | None:
    """Debian's packages, where they are missing; returns why they cannot be had, or None."""
    if os.name != "posix" or os.geteuid() != 0:
        return "a Slurm cluster is set up by root"
    if all(shutil.which(command) for command in ("munged", "slurmctld", "slurmd", "sbatch")):
        return None
    if shutil.which("apt-get") is None:
        return "Slurm is not installed, and there is no apt-get"
    with FileLock(Path(tempfile.gettempdir()) / "jupyter_gpt-apt.lock"):  # several processes may run tests
        return installed_by_apt()


def installed_by_apt() -> str | None:
    for command in (("update",), ("install", "--yes", "--no-install-recommends", *PACKAGES)):
        ran = subprocess.run(
            ["apt-get", "-qq", *command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
        if ran.returncode:
            return f"Slurm cannot be installed: {(ran.stderr or ran.stdout).strip().splitlines()[-1:]}"
    return None


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """`environment` is what Slurm's commands need to find it."""

    def __init__(self, folder: Path):
        self.folder, self.daemons = folder, []
        folder.chmod(0o755)
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        self.conf = folder / "slurm.conf"
        self.conf.write_text(CONF.format(host=host, folder=folder, ports=free_ports(3)))
        self.environment = {"SLURM_CONF": str(self.conf), "GLOO_SOCKET_IFNAME": "lo"}
        paths = {"key-file": key, "socket": folder / "munge.socket", "pid-file": folder / "munge.pid"}
        paths |= {"log-file": folder / "munge.log", "seed-file": folder / "munge.seed"}
        self.run("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in paths.items()))
        self.wait(lambda: (folder / "munge.socket").exists())
        self.run("slurmctld", "-D", "-c")
        self.run("slurmd", "-D", "-N", "n1")
        self.run("slurmd", "-D", "-N", "n2")
        self.wait(lambda: self.ask("sinfo", "-h", "-o", "%T").stdout.split() == ["idle"])

    def run(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}{command[-1]}.log".replace("/", "-")[-60:]).open("w")
        environment = {**os.environ, **self.environment, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        self.daemons.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True))
        log.close()

    def ask(self, *command: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, **self.environment}
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)

    def wait(self, ready, seconds: float = 30) -> None:
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                logs = "\n".join(path.read_text()[-1000:] for path in self.folder.glob("*.log"))
                raise RuntimeError(f"the cluster did not start:\n{logs}")
            time.sleep(0.1)

    def stop(self) -> None:
        self.ask("scancel", "--user=root")
        self.wait(lambda: not self.ask("squeue", "-h").stdout.strip())
        for daemon in reversed(self.daemons):
            daemon.terminate()
        for daemon in self.daemons:
            daemon.wait(10)
