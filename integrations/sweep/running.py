"""The runs of a sweep, each a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence

from hero_plugin.integrations.console import Screen
from hero_plugin.integrations.files import write_json
from hero_plugin.integrations.interrupts import Interrupted, Interrupts
from hero_plugin.integrations.sweep.plan import Job, log_of

__all__ = ["run_jobs"]


def run_jobs(jobs: Sequence[Job], at_once: int, screen: Screen) -> list[Job]:
    """Run the jobs that are not finished, so many at once. Returns those that failed.

    Raises:
        Interrupted: after the running ones have saved and stopped.
    """
    waiting = []
    for job in jobs:
        if job.run.finished:
            job.run.check_same(job.config.to_json())
            screen.say(f"finished already: {job.name}")
        else:
            waiting.append(job)
    running: list[Job] = []
    failed: list[Job] = []
    total = sum(job.config.epochs for job in waiting)
    with Interrupts() as interrupts, screen.working("sweep (epochs)", total) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < at_once and not interrupts.requested:
                    job = waiting.pop(0)
                    job.process = _start(job)
                    running.append(job)
                    screen.say(f"started: {job.name} (log: {log_of(job)})")
                if interrupts.requested:
                    raise Interrupted("stopped; every run has saved. The same command carries on")
                time.sleep(0.2)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    if job.process.returncode:
                        failed.append(job)
                    screen.say(f"{'FAILED' if job.process.returncode else 'finished'}: {job.name}")
                left = sum(job.config.epochs for job in waiting)
                left += sum(job.config.epochs - len(job.run.history()) for job in running)
                progress(total - left, total)
        finally:
            for job in running:
                job.process.terminate()
            for job in running:
                job.process.wait()
    return failed


def _start(job: Job) -> subprocess.Popen[bytes]:
    folder = job.config.output
    settings = folder.with_name(folder.name + ".settings.json")
    write_json(settings, job.config.to_json())
    command = [sys.executable, "-m", "hero_plugin.integrations.cli", "train", job.config.base]
    command += ["--config", str(settings), "--output", str(folder), "--resume"]
    threads = str(job.config.threads)
    # A session of its own: Ctrl-C reaches this process alone, which then stops each run once.
    with open(log_of(job), "ab") as log:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
        )
