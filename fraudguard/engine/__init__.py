"""The only room that knows torch: releases, the scoring engine, and the guard the service calls it through."""

import logging

# Where finetune's bitsandbytes is installed, peft imports it, and it would report an optional kernel at every start.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
