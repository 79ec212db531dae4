"""For all tests: interrupts work, whoever started the run."""

import signal

# A shell lets its background jobs ignore interrupts, and so would the runs that tests interrupt.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
