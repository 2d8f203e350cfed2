"""The variational analysis written a second time, slowly: dense matrices, loops over nodes and faces, textbook algebra.

It shares no code with the package.  Where the package multiplies sparse operators, this file writes down the bilinear
form one neighbour at a time, and where the package factorises, it inverts.
"""

from __future__ import annotations

import itertools
import math

import numpy as np


def _neighbour(node, i, shape, cyclic):
    """The next node along dimension i, or None beyond an open edge."""
    step = list(node)
    step[i] += 1
    if step[i] == shape[i]:
        if not cyclic[i]:
            return None
        step[i] = 0
    return tuple(step)


def background_precision(mask, metrics, lengths, alpha, mu, cyclic):
    """B^-1 over the sea nodes in C order, and the dictionary from node to number."""
    shape, n = mask.shape, mask.ndim
    nodes = [node for node in itertools.product(*map(range, shape)) if mask[node]]
    number = {node: k for k, node in enumerate(nodes)}
    live = [i for i in range(n) if np.mean(lengths[i]) > 0]

    # Rows of the operator div L^2 grad, from the balance of fluxes through the faces of each cell.
    diffusion = np.zeros((len(nodes), len(nodes)))
    faces = []
    for node in nodes:
        for i in range(n):
            other = _neighbour(node, i, shape, cyclic)
            if other is None or not mask[other]:
                continue
            half = [(metrics[j][node] + metrics[j][other]) / 2 for j in range(n)]
            square = (lengths[i][node] ** 2 + lengths[i][other] ** 2) / 2
            flux = half[i] * square / math.prod(half[j] for j in range(n) if j != i)
            for here, there in ((node, other), (other, node)):
                cell = math.prod(metrics[j][here] for j in range(n))
                diffusion[number[here], number[there]] += cell * flux
                diffusion[number[here], number[here]] -= cell * flux
            if i in live:
                faces.append((number[node], number[other], half[i], square / math.prod(half[j] for j in live)))
    volume = np.array([1 / math.prod(metrics[j][node] for j in live) for node in nodes])

    total = np.zeros_like(diffusion)
    field = np.eye(len(nodes))  # column j: the j-th unit field after q applications of the diffusion
    for k, weight in enumerate(alpha):
        if k and k % 2 == 0:
            field = diffusion @ field
        if k % 2 == 0:
            total += weight * np.einsum("ai,a,aj->ij", field, volume, field)
        else:
            for a, b, slope, area in faces:
                change = slope * (field[b] - field[a])
                total += weight * area * np.outer(change, change)
    return total / (mu * math.prod(float(np.mean(lengths[i])) for i in live)), number


def interpolation(mask, number, lines, position, cyclic, renormalise=True):
    """One row of H: hat functions evaluated at every sea node; None where the observation cannot be used."""
    row = np.zeros(len(number))
    for line, x, period in zip(lines, position, cyclic, strict=True):
        if not period and not min(line) <= x <= max(line):
            return None
    for node, k in number.items():
        weight = 1.0
        for i, line in enumerate(lines):
            weight *= _hat(line, node[i], position[i], cyclic[i])
        row[k] = weight
    if row.sum() == 0:
        return None
    return row / row.sum() if renormalise else row


def _hat(line, index, x, period):
    """The piecewise linear function that is 1 at a grid line and 0 at all others."""
    centre = line[index]
    if period:
        # Copies of the line make the neighbours across the seam explicit.
        copies = sorted(value + shift for value in line for shift in (-period, 0, period))
        x = min((x + shift for shift in np.arange(-3, 4) * period), key=lambda value: abs(value - centre))
    else:
        copies = sorted(line)
    where = copies.index(centre)
    before = copies[where - 1] if where else centre
    after = copies[where + 1] if where + 1 < len(copies) else centre
    if before < x <= centre:
        return (x - before) / (centre - before)
    if centre < x < after:
        return (after - x) / (after - centre)
    return 1.0 if x == centre else 0.0


def advection(mask, metrics, velocity, number, cyclic):
    """C of the constraint v . grad x = 0, one node at a time: half of the gradient on each side that is sea."""
    matrix = np.zeros((len(number), len(number)))
    for node, k in number.items():
        for i in range(mask.ndim):
            other = _neighbour(node, i, mask.shape, cyclic)
            if other is None or not mask[other]:
                continue
            slope = (metrics[i][node] + metrics[i][other]) / 2
            for here in (node, other):
                matrix[number[here], number[other]] += velocity[i][here] * slope / 2
                matrix[number[here], k] -= velocity[i][here] * slope / 2
    return matrix


def analyse(
    mask, metrics, lines, positions, values, lengths, noise, *, alpha, mu, cyclic, velocity=None, constraints=()
):
    """Field and error variance, by the gain matrix where B exists, else by the inverse Hessian."""
    prior, number = background_precision(mask, metrics, lengths, alpha, mu, cyclic)
    rows = [interpolation(mask, number, lines, position, cyclic) for position in zip(*positions, strict=True)]
    used = np.array([row is not None for row in rows])
    blocks = [np.array([row for row in rows if row is not None]).reshape(-1, len(number))]
    noise = np.asarray(noise, float)
    full = noise if noise.ndim == 2 else np.diag(np.broadcast_to(noise, used.shape))
    errors, targets = [full[np.ix_(used, used)]], [np.asarray(values)[used]]
    if velocity is not None:
        blocks.append(advection(mask, metrics, velocity, number, cyclic))
        errors.append(np.eye(len(number)))
        targets.append(np.zeros(len(number)))
    for matrix, error, target in constraints:
        blocks.append(np.asarray(matrix))
        error = np.asarray(error, float)
        errors.append(error if error.ndim == 2 else np.diag(np.broadcast_to(error, len(matrix))))
        targets.append(np.broadcast_to(target, len(matrix)))
    operator, target = np.vstack(blocks), np.concatenate(targets)
    error = np.zeros((target.size, target.size))
    start = 0
    for block in errors:
        error[start : start + len(block), start : start + len(block)] = block
        start += len(block)
    if alpha[0]:
        background = np.linalg.inv(prior)
        gain = background @ operator.T @ np.linalg.inv(operator @ background @ operator.T + error)
        field, posterior = gain @ target, background - gain @ operator @ background
    else:
        posterior = np.linalg.inv(prior + operator.T @ np.linalg.inv(error) @ operator)
        field = posterior @ operator.T @ np.linalg.solve(error, target)
    result = np.full((2, *mask.shape), np.nan)
    result[0][mask], result[1][mask] = field, np.diag(posterior)
    return result[0], result[1], used
