"""Python kernels without a port, and without a debugger, for servers on nodes that others use too.

A job carries the text of this file along, before that of server.py.
"""

from jupyter_client.kernelspec import KernelSpecManager

#: What runs in the place of ipykernel's launcher. ipykernel takes the output of child processes at a port that takes in
#: whatever anybody on the node sends, to any size: here it comes by a socket beside the connection file. And debugpy listens
#: on a port where whoever comes may run code, so no kernel offers it.
KERNEL = """
import os, sys
if sys.path and sys.path[0] == "":
    del sys.path[0]
import zmq
from ipykernel import debugger, iostream, kernelapp

folder = os.path.dirname(os.path.abspath(sys.argv[sys.argv.index("-f") + 1]))

def pipe_in(thread):
    thread._pipe_uuid = os.urandom(16)
    thread._pipe_port = "ipc://" + os.path.join(folder, "children-" + str(os.getpid()))
    pipe = thread.socket.context.socket(zmq.PULL)
    pipe.linger = 0
    pipe.bind(thread._pipe_port)
    thread._pipe_in = iostream.ZMQStream(pipe, thread.io_loop)
    thread._pipe_in.on_recv(thread._handle_pipe_msg)

def pipe_out(thread):
    context = zmq.Context()
    pipe = context.socket(zmq.PUSH)
    pipe.linger = 3000
    pipe.connect(thread._pipe_port)
    return context, pipe

iostream.IOPubThread._setup_pipe_in, iostream.IOPubThread._setup_pipe_out = pipe_in, pipe_out
debugger._is_debugpy_available = False
kernelapp.launch_new_instance()
"""


class ClosedKernels(KernelSpecManager):
    """The kernels there are; those of Python start by our own program."""

    def get_kernel_spec(self, kernel_name):
        spec = super().get_kernel_spec(kernel_name)
        for at, pair in enumerate(zip(spec.argv, spec.argv[1:], strict=False)):
            if pair in (("-m", "ipykernel_launcher"), ("-m", "ipykernel")):
                spec.argv = [*spec.argv[:at], "-c", KERNEL, *spec.argv[at + 2 :]]
                spec.metadata = {**spec.metadata, "debugger": False}
                break
        return spec
