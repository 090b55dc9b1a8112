"""The optimizers, built from optax; what acts per layer acts per slice of the stacked parameters.

An optimizer is a function from `Parts` to what optax calls a gradient transformation, and a line in
`bert_jax.training.recipe.OPTIMIZERS`.

Parameters are a plain nested dict whose leaf names read like encoder/layers/attention/query/kernel. Below a node
named "layers" the leaves of all layers are stacked along the first axis.
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bert_jax.training import recipe

STACKED_NODE = "layers"

# From a transformation with a state for each parameter to one with a state for some.
Restrict = Callable[[optax.GradientTransformation], optax.GradientTransformation]


def path_names(path: Sequence[Any]) -> tuple[str, ...]:
    """Returns a key path of `jax.tree_util`, such as (DictKey("encoder"), DictKey("bias")), as names."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def number_of_layer_axes(path: Sequence[Any]) -> int:
    """Returns how many leading axes of the leaf at this key path count layers: 1 below "layers", otherwise 0."""
    return int(STACKED_NODE in path_names(path))


def _is_decayed(path: Sequence[Any]) -> bool:
    names = path_names(path)
    is_bias = names[-1] == "bias" or names[-1].endswith("_bias")
    return not is_bias and not any("layer_norm" in name or name == "layer_mixture" for name in names)


def decay_mask(params: Any) -> Any:
    """Returns a tree like `params` of bools: True where weight decay (and LAMB's trust ratio) applies.

    By name, as in the original: not to biases (a leaf named "bias" or "..._bias") and not to anything below a node
    whose name contains "layer_norm"; nor to the weights of a mixture over layers, which zero would make even. Never by
    rank: a stacked bias is a matrix.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: _is_decayed(path), params)


def scale_by_adam(b1: float, b2: float, eps: float, *, bias_correction: bool) -> optax.GradientTransformation:
    """Like `optax.scale_by_adam`, with the bias correction as a switch and both accumulators in float32."""
    if bias_correction:
        return optax.scale_by_adam(b1, b2, eps, mu_dtype=jnp.float32)

    def init(params):
        def zeros():
            return jax.tree.map(lambda leaf: jnp.zeros_like(leaf, dtype=jnp.float32), params)

        return optax.ScaleByAdamState(count=jnp.zeros([], jnp.int32), mu=zeros(), nu=zeros())

    def update(gradients, state, params=None):
        del params
        mu = optax.tree.update_moment(gradients, state.mu, b1, 1)
        nu = optax.tree.update_moment(gradients, state.nu, b2, 2)
        updates = jax.tree.map(lambda mean, square: mean / (jnp.sqrt(square) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count=optax.safe_increment(state.count), mu=mu, nu=nu)

    return optax.GradientTransformation(init, update)


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Multiplies each layer's update by |parameters| / |update| (You et al. 2019, Algorithm 2).

    Unlike `optax.scale_by_trust_ratio`, which takes a leaf for a layer, this takes the norms of a stacked leaf over all
    axes but the layers'. Where either norm is zero the ratio is 1, as in the published code.
    """

    def scale(path, update, param):
        axes = tuple(range(number_of_layer_axes(path), param.ndim))

        def norm(values):
            return jnp.sqrt(jnp.sum(jnp.square(values), axis=axes, keepdims=True))

        param_norm, update_norm = norm(param), norm(update)
        defined = (param_norm > 0) & (update_norm > 0)
        return update * jnp.where(defined, param_norm / jnp.where(defined, update_norm, 1), 1)

    return optax.stateless(lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params))


@dataclasses.dataclass(frozen=True)
class Parts:
    """What an optimizer is put together from.

    Attributes:
        choices: the user's.
        schedule: learning rate by step, from `bert_jax.training.schedules`.
        restrict: keeps the state of a transformation for some of the parameters alone; a transformation with a
            state for each parameter has to pass through it.
        logical_axes: for each parameter the names of its axes, as `Task.logical_axes` returns them; None where nobody
            said them.
    """

    choices: recipe.Optimizer
    schedule: optax.Schedule
    restrict: Restrict
    logical_axes: Any | None

    @property
    def clip(self) -> optax.GradientTransformation:
        """Scales gradients down to the greatest global norm; comes first."""
        most = self.choices.clip_global_norm
        return optax.identity() if most is None else optax.clip_by_global_norm(most)

    @property
    def adam(self) -> optax.GradientTransformation:
        """Adam's update without its rate; not restricted yet."""
        o = self.choices
        return scale_by_adam(o.b1, o.b2, o.eps, bias_correction=o.corrects_bias)

    @property
    def decay(self) -> optax.GradientTransformation:
        """Decoupled weight decay, of what `decay_mask` says; comes before the rate, which multiplies it."""
        return optax.add_decayed_weights(self.choices.weight_decay, mask=decay_mask)

    @property
    def rate(self) -> optax.GradientTransformation:
        """Multiplies by the negative learning rate; counts the updates, by which it asks the schedule."""
        return optax.scale_by_learning_rate(self.schedule)


def bert_adamw(parts: Parts) -> optax.GradientTransformation:
    """The optimizer of google-research/bert: Adam without bias correction, decoupled weight decay."""
    # The state of each part has its place in checkpoints, that of the identity too.
    return optax.chain(parts.clip, parts.restrict(parts.adam), parts.decay, optax.identity(), parts.rate)


def adamw(parts: Parts) -> optax.GradientTransformation:
    """As `optax.adamw` puts it together (Loshchilov and Hutter 2017)."""
    return optax.chain(parts.clip, optax.chain(parts.restrict(parts.adam), parts.decay, parts.rate))


def lamb(parts: Parts) -> optax.GradientTransformation:
    """Multiplies by the trust ratio per layer (You et al. 2019), except for what is not decayed either."""
    trust_ratio = optax.masked(scale_by_layer_trust_ratio(), decay_mask)
    return optax.chain(parts.clip, parts.restrict(parts.adam), parts.decay, trust_ratio, parts.rate)


def build_optimizer(
    optimizer: recipe.Optimizer,
    schedule: optax.Schedule,
    restrict: Restrict | None = None,
    *,
    logical_axes: Any | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer: from gradients, its state and parameters to updates that are to be added.

    The state counts the updates, and that count is the step that the schedule is asked for. Each kind of this
    project clips by global norm first, and decays by the learning rate times `weight_decay` where `decay_mask` says so.

    Args:
        optimizer: the choices.
        schedule: learning rate by step, from `bert_jax.training.schedules`.
        restrict: which parameters moments are kept for, such as `trainable.moments_of_trained`; for all if None. All
            else that an optimizer does keeps nothing of any parameter.
        logical_axes: of the parameters, as `Task.logical_axes` returns them; "muon" cannot do without.
    """
    module, _, function = recipe.OPTIMIZERS[optimizer.kind].partition(":")
    build = getattr(importlib.import_module(module), function)
    return build(Parts(optimizer, schedule, restrict or (lambda transformation: transformation), logical_axes))
