"""Sections along a line of great circles: where its points lie, and which nodes of a grid they lie between."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phidias_lab.errors import InputError
from phidias_lab.methods.variational.geometry import great_circle

TURN = 360.0


@dataclass(frozen=True)
class Line:
    """Points along a line, each in the middle of its part: degrees, and metres from the first vertex.

    vertices : how far along the line each vertex lies; the last is the length of the line.
    """

    longitude: np.ndarray
    latitude: np.ndarray
    distance: np.ndarray
    vertices: np.ndarray


def line(longitude, latitude, number: int) -> Line:
    """`number` points in the middle of equal parts of the line through these vertices, great circle by great circle.

    Between two vertices an angle w apart, the point at the share t of the way is (sin((1-t)w) a + sin(tw) b) / sin w of
    their unit vectors a and b (Shoemake 1985, doi:10.1145/325165.325242).
    """
    lon, lat = np.asarray(longitude, float), np.asarray(latitude, float)
    if lon.shape != lat.shape or lon.ndim != 1 or lon.size < 2 or not np.isfinite([lon, lat]).all():
        raise InputError("A line needs two vertices at least, each a longitude and a latitude in degrees.")
    if np.abs(lat).max() > 90:
        raise InputError(
            f"A vertex of the line has the latitude {lat[np.abs(lat).argmax()]:g}; it must be from -90 to 90."
        )
    legs = great_circle(lon[:-1], lat[:-1], lon[1:], lat[1:])
    vertices = np.r_[0.0, np.cumsum(legs)]
    if not vertices[-1] > 0:
        raise InputError("The vertices of the line are all at one place. Give a line of some length.")
    distance = (np.arange(number) + 0.5) * vertices[-1] / number
    leg = np.clip(np.searchsorted(vertices, distance, side="right") - 1, 0, legs.size - 1)
    share = (distance - vertices[leg]) / legs[leg]
    phi, lam = np.radians(lat), np.radians(lon)
    vectors = np.array([np.cos(phi) * np.cos(lam), np.cos(phi) * np.sin(lam), np.sin(phi)])
    one, other = vectors[:, leg], vectors[:, leg + 1]
    angle = np.arctan2(np.linalg.norm(np.cross(one, other, axis=0), axis=0), (one * other).sum(axis=0))
    if (np.pi - angle).min() < 1e-6:
        raise InputError("Two vertices of the line are opposite each other on the globe. Give one between them.")
    point = (np.sin((1 - share) * angle) * one + np.sin(share * angle) * other) / np.sin(angle)
    found = np.degrees(np.arctan2(point[1], point[0])), np.degrees(np.arctan2(point[2], np.hypot(point[0], point[1])))
    # In the turn of the first vertex, without a jump along the line.
    return Line(lon[0] + np.unwrap(found[0] - lon[0], period=TURN), found[1], distance, vertices)


@dataclass(frozen=True)
class Between:
    """For each place the two nodes of a coordinate that it lies between, the share of the upper one, and whether it lies in
    a cell of the grid at all; the outermost cells reach half a step beyond their nodes."""

    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray
    inside: np.ndarray

    @property
    def nearest(self) -> np.ndarray:
        return np.where(self.share < 0.5, self.lower, self.upper)


def between(nodes, places, turn: float | None = None) -> Between:
    """Where places lie among the nodes of a coordinate, in any order; with `turn` the coordinate closes after one."""
    nodes, places = np.asarray(nodes, float), np.asarray(places, float)
    start, closed, order = 0.0, False, np.argsort(nodes)
    if turn is not None:
        turned = np.mod(nodes, turn)
        order = np.argsort(turned)
        gaps = np.diff(np.r_[turned[order], turned[order][0] + turn])
        # Beyond the widest gap the grid begins, unless it is a step like the others: then the grid has no end.
        widest = int(gaps.argmax())
        order = np.roll(order, -(widest + 1))
        start, others = turned[order[0]], np.delete(gaps, widest)
        closed = others.size > 0 and gaps[widest] <= 1.5 * others.max()
        order = np.r_[order, order[0]] if closed else order
        nodes = np.mod(turned - start, turn)
    line = nodes[order]
    if closed:
        line[-1] = turn
    if line.size == 1:
        only = np.zeros(places.shape, int)
        return Between(only, only, np.zeros(places.shape), np.isfinite(places))
    first, last = (line[1] - line[0]) / 2, (line[-1] - line[-2]) / 2
    if turn is not None:
        west = 0.0 if closed else first
        places = np.mod(places - start + west, turn) - west
    lower = np.clip(np.searchsorted(line, places, side="right") - 1, 0, line.size - 2)
    share = np.clip((places - line[lower]) / (line[lower + 1] - line[lower]), 0.0, 1.0)
    inside = (places >= line[0] - first) & (places <= line[-1] + last)
    return Between(order[lower], order[lower + 1], share, inside)
