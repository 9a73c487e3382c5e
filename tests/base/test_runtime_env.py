"""What is set before TensorFlow is loaded."""

import os
import subprocess
import sys

import pytest

from helpers.base import repository


@pytest.mark.parametrize("asked, threads", [("3", 3), ("0", 2), ("auto", 2), ("", 2), ("-1", 2)])
def test_what_is_no_number_of_threads_is_the_labs_own(asked, threads):
    """TensorFlow takes 0 for as many as it likes; LiteRT refuses it, and the gate's exit code 1 would be a verdict."""
    told = "import os; from helpers.base import runtime_env; print(runtime_env.THREADS, os.environ['TF_NUM_INTRAOP_THREADS'])"
    done = subprocess.run(
        [sys.executable, "-c", told],
        env={**os.environ, "TF_NUM_INTRAOP_THREADS": asked},
        cwd=repository.REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [str(threads)] * 2
