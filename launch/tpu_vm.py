"""Makes a Cloud TPU VM, trains on all its workers, goes on after preemption, and gives it back.

    python launch/tpu_vm.py resume --name=a --zone=us-central2-b --accelerator_type=v4-32 \
        --runtime_version=tpu-ubuntu2204-base --spot -- \
        python launch/train.py --config=configs/digits.py --workdir=gs://BUCKET/a --distributed

Verbs: create, setup, run, logs, stop, delete; and resume, which does what is needed of the first
three until the run has ended, again after each preemption. --dry_run prints the commands only.
"""

import shlex
import sys

from absl import flags

from lt_jax import cli, tpu_vm, tpu_vm_resume
from lt_jax.errors import InputError

NAME = flags.DEFINE_string("name", "", "Name of the TPU VM.")
ZONE = flags.DEFINE_string("zone", "", "Such as us-central2-b.")
PROJECT = flags.DEFINE_string("project", "", "Cloud project, instead of gcloud's own.")
ACCELERATOR = flags.DEFINE_string("accelerator_type", "", "Such as v4-32.")
RUNTIME = flags.DEFINE_string("runtime_version", "", "Such as tpu-ubuntu2204-base.")
SPOT = flags.DEFINE_bool("spot", False, "Cheap and preempted at times, by a queued resource.")
CREATE_FLAG = flags.DEFINE_multi_string("create_flag", [], "Another one, --network=NAME.")
EXTRAS = flags.DEFINE_string("extras", "tfds,pretrained,gcs", "Extras of the package to install.")
POLL = flags.DEFINE_float("poll_seconds", 60.0, "Between two looks of resume.", lower_bound=0.0)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the commands.")
OF_MACHINE = ("create", "setup", "logs", "stop", "delete")


def main(verb: str, command: list[str]) -> None:
    """Carries out, or prints, what the verb stands for."""
    shape = (NAME.value, ZONE.value, ACCELERATOR.value, RUNTIME.value, PROJECT.value, SPOT.value)
    machine = tpu_vm.Machine(*shape, tuple(CREATE_FLAG.value), EXTRAS.value)
    if verb == "resume" and DRY_RUN.value:
        print(*tpu_vm_resume.rehearsal(machine, command, POLL.value), sep="\n")
    elif verb == "resume":
        tpu_vm_resume.resume(machine, command, poll_seconds=POLL.value, say=print)
    elif verb == "run" or verb in OF_MACHINE:
        made = tpu_vm.run(machine, command) if verb == "run" else getattr(tpu_vm, verb)(machine)
        if DRY_RUN.value:
            print(*map(shlex.join, made), sep="\n")
        else:
            tpu_vm_resume.call_all(made, print)
    else:
        raise InputError(f"verb {verb!r} is none of {', '.join((*OF_MACHINE, 'run', 'resume'))}")


if __name__ == "__main__":
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    verb = given[0] if given and not given[0].startswith("-") else ""
    sys.argv[1:] = given[1:cut] if verb else given[:cut]
    cli.main(lambda: main(verb, given[cut + 1 :]))
