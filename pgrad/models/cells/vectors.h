// Vectors, products and what steps of recurrent cells have in common.
//
// T steps, B columns, N cells side by side, H units, n inputs. Arrays are contiguous and of float32: x [T,
// B, n]; keep [T, B] is 0 where an episode begins; rows [N, T, B, H]; what is under the gates, q [N, T, B,
// 4·H]. Weights are four for each cell, those of torch: W [G·H, n], U [G·H, H], b and d [G·H]. Every column
// goes its own way, and its results do not depend on how many others there are.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512F__)
constexpr long LANES = 16, HIGH = 8; // of a vector; rows of a product that are computed together
#elif defined(__AVX__)
constexpr long LANES = 8, HIGH = 4;
#else
constexpr long LANES = 4, HIGH = 4;
#endif
constexpr long WIDE = 2; // vectors of a row that are computed together

#define INLINE inline __attribute__((always_inline))

typedef float Vector __attribute__((vector_size(LANES * 4), aligned(4)));
typedef int32_t Bits __attribute__((vector_size(LANES * 4), aligned(4)));

// The first w numbers from p; w is a constant but at the end of a row.
static INLINE Vector load(const float *p, long w)
{
    if (w == LANES) return *(const Vector *)p;
    Vector v = {};
    for (long i = 0; i < w; i++) v[i] = p[i];
    return v;
}

static INLINE void store(float *p, Vector v, long w)
{
    if (w == LANES) *(Vector *)p = v;
    else for (long i = 0; i < w; i++) p[i] = v[i];
}

// f(j, w) for every vector of a row of n numbers.
template <class F> static INLINE void along(long n, F f)
{
    long j = 0;
    for (; j + LANES <= n; j += LANES) f(j, LANES);
    if (j < n) f(j, n - j);
}

// 2^(x/ln 2) = 2^n·2^(r/ln 2) with |r| ≤ ln 2/2 and a polynomial (Cephes' expf), to the last digit or two;
// beyond ±87 that of ±87, NaN of NaN.
static INLINE Vector exponential(Vector x)
{
    const Vector none = {};
    x = x > 87.0f ? none + 87.0f : x;
    x = x < -87.0f ? none - 87.0f : x;
    Vector shifted = x * 1.44269504f + 12582912.0f; // n is in its last bits
    Vector n = shifted - 12582912.0f;
    Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (Vector)(((Bits)shifted << 23) + 0x3f800000);
}

static INLINE Vector sigmoid(Vector x) { return 1.0f / (1.0f + exponential(-x)); }

static INLINE Vector tanh_of(Vector x) { return 1.0f - 2.0f * sigmoid(-2.0f * x); }

// Part of c = start + a·b with a [R, k] and b [k, n]: R rows, C vectors, the last of them w numbers. Rows
// of a, b, start and c are of_a, of_b, of_start and of_c apart, the numbers in a row of a by_a.
template <int R, int C>
static INLINE void block(long k, const float *a, long of_a, long by_a, const float *b, long of_b,
                         const float *start, long of_start, float *c, long of_c, long w)
{
    Vector sum[R][C];
    for (int r = 0; r < R; r++)
        for (int j = 0; j < C; j++)
            sum[r][j] = load(start + r * of_start + j * LANES, j == C - 1 ? w : LANES);
    for (long i = 0; i < k; i++) {
        Vector row[C];
        for (int j = 0; j < C; j++) row[j] = load(b + i * of_b + j * LANES, j == C - 1 ? w : LANES);
        for (int r = 0; r < R; r++)
            for (int j = 0; j < C; j++) sum[r][j] += a[r * of_a + i * by_a] * row[j];
    }
    for (int r = 0; r < R; r++)
        for (int j = 0; j < C; j++) store(c + r * of_c + j * LANES, sum[r][j], j == C - 1 ? w : LANES);
}

// C vectors of every row of c = start + a·b with a [m, k], the last of them w numbers.
template <int C>
static INLINE void columns(long m, long k, const float *a, long of_a, long by_a, const float *b, long of_b,
                           const float *start, long of_start, float *c, long of_c, long w)
{
    long r = 0;
    for (; r + HIGH <= m; r += HIGH)
        block<HIGH, C>(k, a + r * of_a, of_a, by_a, b, of_b, start + r * of_start, of_start, c + r * of_c,
                       of_c, w);
    for (; r < m; r++)
        block<1, C>(k, a + r * of_a, of_a, by_a, b, of_b, start + r * of_start, of_start, c + r * of_c, of_c,
                    w);
}

static INLINE void multiply(long m, long k, long n, const float *a, long of_a, long by_a, const float *b,
                            long of_b, const float *start, long of_start, float *c, long of_c)
{
    long j = 0;
    for (; j + WIDE * LANES <= n; j += WIDE * LANES)
        columns<WIDE>(m, k, a, of_a, by_a, b + j, of_b, start + j, of_start, c + j, of_c, LANES);
    along(n - j, [&](long i, long w) __attribute__((always_inline)) {
        columns<1>(m, k, a, of_a, by_a, b + j + i, of_b, start + j + i, of_start, c + j + i, of_c, w);
    });
}

// c = start + a·b with a [m, k] and b [k, n].
static void product(long m, long k, long n, const float *a, long of_a, const float *b, long of_b,
                    const float *start, long of_start, float *c, long of_c)
{
    multiply(m, k, n, a, of_a, 1, b, of_b, start, of_start, c, of_c);
}

// c [m, n] = aᵀ·b with a [k, m] and b [k, n], a part of the rows at a time, so that they are still at hand.
static void sum_of_products(long k, long m, long n, const float *a, long of_a, const float *b, long of_b,
                            float *c)
{
    std::memset(c, 0, m * n * sizeof(float));
    for (long i = 0; i < k; i += 128) {
        long part = k - i < 128 ? k - i : 128;
        multiply(m, part, n, a + i * of_a, 1, of_a, b + i * of_b, of_b, c, n, c, n);
    }
}

// to [n, ·] = factor·from [m, n] transposed; rows of `to` are of_to apart.
static void turn(long m, long n, const float *from, float factor, float *to, long of_to)
{
    for (long block = 0; block < m; block += 16)
        for (long j = 0; j < n; j++)
            for (long i = block; i < m && i < block + 16; i++) to[j * of_to + i] = factor * from[i * n + j];
}

// to = from·keep, for B rows of H.
static INLINE void kept(long B, long H, const float *from, long of_from, const float *keep, float *to)
{
    for (long b = 0; b < B; b++)
        along(H, [&](long j, long w) __attribute__((always_inline)) {
            store(to + b * H + j, load(from + b * of_from + j, w) * keep[b], w);
        });
}

// The weights of a cell as steps take them: those of h, x and 1 for q [H + n + 1, 4·H].
typedef std::vector<float> Arranged;
typedef const float *const *Weights;

// What x and 1 make of q, for B rows.
static void from_x(long B, long H, long n, const float *x, long of_x, const float *A, float *q)
{
    product(B, n, 4 * H, x, of_x, A + H * 4 * H, 4 * H, A + (H + n) * 4 * H, 0, q, 4 * H);
}

// The change of q for B rows where the weights change by D, and h by dm; h is part of its first G·H.
static void changed(long B, long H, long G, long n, const float *x, const float *m, const float *dm,
                    const Arranged &A, const Arranged &D, const float *more, float *dq)
{
    from_x(B, H, n, x, n, D.data(), dq);
    product(B, H, G * H, m, H, D.data(), 4 * H, dq, 4 * H, dq, 4 * H);
    product(B, H, G * H, dm, H, A.data(), 4 * H, dq, 4 * H, dq, 4 * H);
    for (long i = 0; more && i < 4 * B * H; i++) dq[i] += more[i];
}

// The gradients of a cell's weights from that of q, for `rows` rows of x and m: G blocks of it are of U·h +
// d, and of W·x + b the first G − 1 and the last.
static void gradients(long rows, long H, long G, long n, const float *x, const float *m, const float *dq,
                      float *dW, float *dU, float *db, float *dd)
{
    sum_of_products(rows, G * H, H, dq, 4 * H, m, H, dU);
    std::vector<float> turned(n * 4 * H), sums(4 * H), one(rows, 1.0f);
    sum_of_products(rows, n, 4 * H, x, n, dq, 4 * H, turned.data());
    sum_of_products(rows, 1, 4 * H, one.data(), 1, dq, 4 * H, sums.data());
    for (long gate = 0; gate < G; gate++) {
        long of_x = gate < G - 1 ? gate : 3;
        for (long j = 0; j < H; j++) {
            for (long i = 0; i < n; i++) dW[(gate * H + j) * n + i] = turned[i * 4 * H + of_x * H + j];
            db[gate * H + j] = sums[of_x * H + j];
            dd[gate * H + j] = sums[gate * H + j];
        }
    }
}

// Of every column 0 where an episode begins, else 1.
static std::vector<float> going_on(long B, const uint8_t *start)
{
    std::vector<float> keep(B);
    for (long b = 0; b < B; b++) keep[b] = start[b] ? 0.0f : 1.0f;
    return keep;
}

// The first H numbers of rows that are `apart`, behind the first n of `seen`.
static void shown(long B, long n, long H, const float *from, long apart, float *seen)
{
    for (long b = 0; b < B; b++) std::memcpy(seen + b * (n + H) + n, from + b * apart, H * sizeof(float));
}
