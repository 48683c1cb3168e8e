"""Two processes of which the second is killed while the first waits for it. Run as by torchrun."""

import os
import signal

from aimcore.engine.distributed import barrier, start
from aimcore.running.lost_processes import ProcessLost, naming_lost_processes

if __name__ == "__main__":
    world = start(num_threads=1)
    try:
        with naming_lost_processes():
            if not world.is_first:
                os.kill(os.getpid(), signal.SIGKILL)
            barrier()
    except ProcessLost as lost:
        print(lost)
