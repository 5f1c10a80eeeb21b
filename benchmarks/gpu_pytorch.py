"""The rows of PyTorch in `gpu.py`: the same step, channels last, bfloat16, data on the GPU."""

import json
import sys
import time

import torch
import torch.nn.functional as F
from step_vs_pytorch import TorchNet

SIDES = {"resnet32": (32, 10, 10_240), "resnet50": (224, 1000, 1_280)}


def network_of(name):
    """ResNet-32 of He et al., or torchvision's ResNet-50."""
    if name == "resnet32":
        return TorchNet()
    import torchvision

    return torchvision.models.resnet50()


class Row:
    """A training step, compiled or not."""

    def __init__(self, name, batch, mode, data):
        """Compiles it."""
        self.name, self.batch, (self.images, self.labels) = name, batch, data
        self.net = network_of(name).cuda().to(memory_format=torch.channels_last).train()
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), 0.01, momentum=0.9, weight_decay=2e-4, fused=True
        )
        options = {"mode": "reduce-overhead"} if "reduce-overhead" in mode else {}
        self.loss = self._loss if mode == "eager" else torch.compile(self._loss, **options)
        self.chosen = torch.randint(len(self.labels), (batch,), device="cuda")
        self.step = self._graph() if "one graph" in mode else self._step
        self.first = float(self.step())
        for _ in range(20):
            self.step()
        torch.cuda.synchronize()

    def _loss(self, chosen):
        """Draws, crops, mirrors, normalises, and the loss; flipping and cropping by index."""
        images = self.images[chosen]
        batch, side = len(chosen), images.shape[-1]
        device = images.device
        column = torch.arange(side, device=device)
        flip = torch.rand(batch, 1, device=device) < 0.5
        columns = torch.where(flip, side - 1 - column, column)
        rows = column.expand(batch, side)
        if self.name == "resnet32":
            images = F.pad(images, (4, 4, 4, 4))
            shift = torch.randint(9, (batch, 2, 1), device=device)
            rows, columns = rows + shift[:, 0], columns + shift[:, 1]
        which = torch.arange(batch, device=device)[:, None, None]
        images = images.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None]]
        pixels = ((images.float() / 255 - 0.45) / 0.25).permute(0, 3, 1, 2)
        with torch.autocast("cuda", torch.bfloat16):
            logits = self.net(pixels)
        return F.cross_entropy(logits.float(), self.labels[chosen])

    def _step(self):
        self.chosen.random_(len(self.labels))
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.chosen)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def _graph(self):
        """The whole step recorded once as a CUDA graph, and replayed."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(5):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._step()

        def replay():
            graph.replay()
            return loss

        return replay

    def rate(self, seconds):
        """Images a second over about that long."""
        steps = 10
        for _ in range(2):  # the first time shows how many steps that is
            torch.cuda.synchronize()
            start = time.perf_counter()
            for _ in range(steps):
                self.step()
            torch.cuda.synchronize()
            elapsed = time.perf_counter() - start
            rate = steps * self.batch / elapsed
            steps = max(int(steps * seconds / elapsed), 10)
        return rate


def main():
    """Compiles, then answers on standard output what is asked on standard input."""
    asked = json.loads(sys.argv[1])
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True
    side, classes, count = SIDES[asked["network"]]
    images = torch.randint(256, (count, 3, side, side), dtype=torch.uint8, device="cuda")
    labels = torch.arange(count, device="cuda") % classes
    begun = time.perf_counter()
    data = images.contiguous(memory_format=torch.channels_last), labels
    row = Row(asked["network"], asked["batch"], asked["mode"], data)
    facts = {"compile_seconds": time.perf_counter() - begun, "loss": row.first}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        rate = row.rate(json.loads(line)["seconds"])
        print(json.dumps({"images_per_second": rate}), flush=True)


if __name__ == "__main__":
    main()
