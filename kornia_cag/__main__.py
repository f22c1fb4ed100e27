"""``python -m kornia_cag``: the same as the ``kornia-cag`` command."""

import sys

from kornia_cag.cli import main

sys.exit(main())
