// Plain arithmetic of heatmaps, for the CPU and for CUDA: a joint's footprint, the derivatives of a bell from sums over
// its plane, and the refinement steps of decoding. The unnamed namespace keeps the copies of different instruction sets
// apart. Equations: tests/derivations/heatmap.py.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/anywhere.h"

namespace fastpose::heatmap {

enum class Profile : uint8_t { gaussian, gaussian_rounded, msra, udp, wide, binary, patch, constant };

namespace {

// Value exp(-exponent d^2 / sigma^2) at distance d, in a square of +-window sigma about the nearest pixel (negative: on
// the whole plane). fastpose/ops/heatmap/_profiles.py holds the same table with its sources.
struct Shape {
    double exponent;
    bool rounded;
    double window;
};

FASTPOSE_ANYWHERE Shape shape_of(Profile profile) {
    switch (profile) {
        case Profile::gaussian: return {0.5, false, -1};
        case Profile::gaussian_rounded: return {0.5, true, -1};
        case Profile::msra: return {0.5, true, 3};
        case Profile::udp: return {0.5, false, 3};
        case Profile::wide: return {1, false, -1};
        case Profile::binary: return {0, true, 0};
        case Profile::patch: return {0, true, 3};
        default: return {0, false, -1};
    }
}

constexpr double reach_in_sigmas = 3;

// What a joint leaves on its plane: exp(-sharpness ((x - this->x)^2 + (y - this->y)^2)) within the bounds.
template <class T>
struct Footprint {
    bool present = false;
    T x = 0, y = 0, sharpness = 0, sigma = 1;
    T left = 0, right = 0, top = 0, bottom = 0;  // pixels, inclusive
};

template <class T>
FASTPOSE_ANYWHERE bool is_finite(T value) {
    return value - value == T(0);
}

// Whether a mark of half side `reach` at `centre` touches `count` pixels (MMPose's rule, with a pixel to spare).
template <class T>
FASTPOSE_ANYWHERE bool touches(T centre, T reach, int64_t count) {
    return centre - reach < static_cast<T>(count) && centre + reach + 1 >= 0;
}

template <class T>
FASTPOSE_ANYWHERE Footprint<T> footprint(const Shape& shape, T x, T y, T sigma, int64_t height, int64_t width) {
    const T nearest_x = std::trunc(x + T(0.5)), nearest_y = std::trunc(y + T(0.5));
    const T square = sigma * sigma, sharpness = static_cast<T>(shape.exponent) / square;
    const T reach = static_cast<T>(reach_in_sigmas) * sigma;
    Footprint<T> mark;
    if (!(sigma > 0) || !is_finite(square) || !is_finite(sharpness) || !is_finite(x) || !is_finite(y)) return mark;
    const T centre_x = shape.rounded ? nearest_x : x, centre_y = shape.rounded ? nearest_y : y;
    if (!touches(centre_x, reach, width) || !touches(centre_y, reach, height)) return mark;
    mark = {true, centre_x, centre_y, sharpness, sigma, 0, static_cast<T>(width), 0, static_cast<T>(height)};
    if (shape.window < 0) return mark;
    const T half = std::floor(static_cast<T>(shape.window) * sigma);  // whole pixels: nearest +- half is then exact
    mark.left = nearest_x - half;
    mark.right = nearest_x + half;
    mark.top = nearest_y - half;
    mark.bottom = nearest_y + half;
    return mark;
}

template <class T>
FASTPOSE_ANYWHERE Footprint<T> footprint(Profile profile, T x, T y, T sigma, int64_t height, int64_t width) {
    return footprint(shape_of(profile), x, y, sigma, height, width);
}

// Sums over a plane of f, f u, f v and f (u^2 + v^2), with (u, v) the offset from the bell's centre.
template <class T>
struct Moments {
    T total = 0, x = 0, y = 0, square = 0;
};

// A joint's centre and sigma, their gradient, or a direction in which they move.
template <class T>
struct JointVector {
    T x = 0, y = 0, sigma = 0;
};

// Gradient of sum(f g) for the bell g in its centre and sigma, from the moments of f g; zero for an absent bell,
// whatever f is there.
template <class T>
FASTPOSE_ANYWHERE JointVector<T> first_gradient(const Moments<T>& m, const Footprint<T>& mark) {
    if (!mark.present) return {};
    const T slope = 2 * mark.sharpness;
    return {slope * m.x, slope * m.y, slope / mark.sigma * m.square};
}

// Directional derivative of the bell's logarithm along `move` at one offset: phi' = axis(u, move.x) + axis(v, move.y).
template <class T>
FASTPOSE_ANYWHERE T log_derivative(const Footprint<T>& mark, T offset, T along, T along_sigma) {
    const T slope = 2 * mark.sharpness;
    return offset * (slope * along + slope / mark.sigma * along_sigma * offset);
}

// The same summed over a plane that is weighted by f, from the moments of f.
template <class T>
FASTPOSE_ANYWHERE T log_derivative(const Footprint<T>& mark, const Moments<T>& m, const JointVector<T>& move) {
    if (!mark.present) return 0;
    const T slope = 2 * mark.sharpness;
    return slope * (m.x * move.x + m.y * move.y + m.square / mark.sigma * move.sigma);
}

// Gradient of sum(f g (extra + amplitude phi')) in centre and sigma: `response` are the moments of the whole integrand,
// `weighted` those of f g. The second summand is what phi' itself depends on.
template <class T>
FASTPOSE_ANYWHERE JointVector<T> second_gradient(const Moments<T>& response, const Moments<T>& weighted,
                                                 const Footprint<T>& mark, const JointVector<T>& move, T amplitude) {
    if (!mark.present) return {};
    const T slope = 2 * mark.sharpness, bend = 2 * slope / mark.sigma;
    JointVector<T> gradient = first_gradient(response, mark);
    gradient.x -= amplitude * (slope * move.x * weighted.total + bend * move.sigma * weighted.x);
    gradient.y -= amplitude * (slope * move.y * weighted.total + bend * move.sigma * weighted.y);
    gradient.sigma -= amplitude * (bend * (move.x * weighted.x + move.y * weighted.y) +
                                   3 * slope / (mark.sigma * mark.sigma) * move.sigma * weighted.square);
    return gradient;
}

// ---------------------------------------------------------------------------------------------------------- decoding

struct Step {
    double x = 0, y = 0;
};

// exp of a number that is not positive. In float32 a GPU takes two instructions for it: relative errors grow with the
// argument, as those of the argument itself, and hit only what adds little to a sum.
FASTPOSE_ANYWHERE double decaying_exponential(double value) { return std::exp(value); }
FASTPOSE_ANYWHERE float decaying_exponential(float value) {
#ifdef __CUDA_ARCH__
    return __expf(value);
#else
    return std::exp(value);
#endif
}

// A pixel's share in a softmax of inverse temperature beta, before its normalisation; none where it is not finite.
template <class T>
FASTPOSE_ANYWHERE T soft_weight(T value, T beta, T peak) {
    const T weight = decaying_exponential((value - peak) * beta);
    return std::abs(value) <= std::numeric_limits<T>::max() ? weight : T(0);
}

// A quarter pixel toward the higher neighbour; false comparisons (equal, NaN) give none.
template <class T>
FASTPOSE_ANYWHERE double quarter(T higher, T lower) {
    return higher > lower ? 0.25 : higher < lower ? -0.25 : 0;
}

// The Newton step of a quadratic with this gradient and Hessian, if it is finite and within max_step.
FASTPOSE_ANYWHERE Step newton(double dx, double dy, double xx, double yy, double xy, double max_step) {
    const double determinant = xx * yy - xy * xy;
    const Step step{-(yy * dx - xy * dy) / determinant, -(xx * dy - xy * dx) / determinant};
    const bool taken =
        is_finite(step.x) && is_finite(step.y) && std::abs(step.x) <= max_step && std::abs(step.y) <= max_step;
    return taken ? step : Step{};
}

// Whether the step looks at pixel at[row][column] of the 5 x 5 about the peak.
FASTPOSE_ANYWHERE bool step_uses(bool udp, int row, int column) {
    const int down = row < 2 ? 2 - row : row - 2, across = column < 2 ? 2 - column : column - 2;
    return udp ? down < 2 && across < 2 : down + across <= 2;
}

// Zhang et al. (CVPR 2020): second differences over two pixels. at[y + 2][x + 2] are logarithms around the peak.
FASTPOSE_ANYWHERE Step dark_step(const double (&at)[5][5], double max_step) {
    const double dx = 0.5 * (at[2][3] - at[2][1]), dy = 0.5 * (at[3][2] - at[1][2]);
    const double xx = 0.25 * (at[2][4] - 2 * at[2][2] + at[2][0]), yy = 0.25 * (at[4][2] - 2 * at[2][2] + at[0][2]);
    const double xy = 0.25 * (at[3][3] - at[1][3] - at[3][1] + at[1][1]);
    return newton(dx, dy, xx, yy, xy, max_step);
}

// MMPose's UDP codec: second differences over one pixel, a small multiple of the identity added to the Hessian.
FASTPOSE_ANYWHERE Step dark_udp_step(const double (&at)[5][5], double max_step) {
    constexpr double epsilon = 1.1920928955078125e-07;  // of float32
    const double dx = 0.5 * (at[2][3] - at[2][1]), dy = 0.5 * (at[3][2] - at[1][2]);
    const double xx = at[2][3] - 2 * at[2][2] + at[2][1] + epsilon, yy = at[3][2] - 2 * at[2][2] + at[1][2] + epsilon;
    const double xy = 0.5 * (at[3][3] - at[2][3] - at[3][2] + 2 * at[2][2] - at[2][1] - at[1][2] + at[1][1]);
    return newton(dx, dy, xx, yy, xy, max_step);
}

}  // namespace
}  // namespace fastpose::heatmap
