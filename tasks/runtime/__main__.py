"""``python -m tasks.runtime COMMAND …`` runs a command that ends with the process that started it, however that ends."""

import os
import signal
import sys

from tasks.runtime.processes import end_with_parent, take_interrupts

if __name__ == "__main__":
    end_with_parent()
    # Who was started in the background of a script has SIGINT ignored; DVC needs it to leave its lock clean.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    take_interrupts()
    os.execvp(sys.argv[1], sys.argv[1:])
