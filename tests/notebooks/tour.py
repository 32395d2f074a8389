# %% [markdown]
# # minires in a notebook
# Cells begin with `# %%`. The answers to the debugger follow `# ipdb>`.

# %%
import matplotlib.pyplot as plt
import numpy as np

import minires as mr
import minires.functional as F

mr.manual_seed(0)
rng = np.random.default_rng(0)
x = mr.tensor(rng.standard_normal((2, 3, 16, 16), np.float32))
weight = mr.tensor(rng.standard_normal((4, 3, 3, 3), np.float32), requires_grad=True)
labels = np.array([3, 7])
model = mr.models.create("resnet20", width=4)

# %% [markdown]
# ## Tensors and operations

# %%
x

# %%
y = F.relu(F.conv2d(x, weight, padding=1))
loss = (y * y).mean()
loss.backward()
weight.grad.shape

# %%
float(x.sum())

# %%
picture = plt.imshow(x[0, 0])

# %%
mr.inspect.card(F.relu(weight).node)

# %% [markdown]
# ## A network

# %%
model

# %%
mr.summary(model, (3, 32, 32))

# %%
mr.inspect.trace(model, x, labels, title="resnet20")

# %%
with mr.inspect.breakpoint(at="layer2.0.conv1"):
    shape = model(x).shape
# ipdb> w
# ipdb> p x.shape
# ipdb> c

# %%
shape

# %% [markdown]
# ## An own operation, an own network, an own backend


# %%
class Double(mr.Function):
    def forward(self, x):
        return 2 * x

    def backward(self, grad_output):
        breakpoint()
        return 2 * grad_output


class Small(mr.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = mr.nn.Conv2d(3, 4, 3, padding=1)
        self.fc = mr.nn.Linear(4, 10)

    def forward(self, x):
        x = F.relu(self.conv(Double()(x)))
        return self.fc(F.flatten(F.adaptive_avg_pool2d(x, 1)))


small = Small()
small

# %%
F.cross_entropy(small(mr.tensor(x, requires_grad=True)), labels).backward()
# ipdb> p grad_output.shape
# ipdb> c


# %%
class Counting:
    name = "counting"
    calls = 0

    def __getattr__(self, function):
        return getattr(mr.backends.reference, function)

    def conv2d_forward(self, *operands):
        Counting.calls += 1
        return mr.backends.reference.conv2d_forward(*operands)


with mr.backends.using(Counting()):
    counted = model(x).shape
Counting.calls

# %% [markdown]
# ## Training and weights

# %%
settings = {"network": "resnet20", "data": "digits", "width": 2, "iterations": 2, "batch_size": 64}
mr.training.train(mr.training.Config(**settings), "run")

# %%
mr.training.restore("run")

# %%
mr.weights.load("run")
