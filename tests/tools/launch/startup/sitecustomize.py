"""What Python runs first in the processes of these tests: forking a process that holds torch is slow."""

import multiprocessing
from multiprocessing.pool import ThreadPool

multiprocessing.Pool = ThreadPool
