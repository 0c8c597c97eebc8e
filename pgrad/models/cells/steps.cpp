// The steps of recurrent cells over whole sequences, and of their derivatives: `native.py` calls them.
//
// T steps, B columns, N cells side by side, H units, n inputs. Arrays are contiguous and of float32: x [T, B, n];
// keep [T, B] is 0 where an episode begins; rows [N, T, B, H]; what is under the gates, q [N, T, B, 4·H]. Weights
// are four for each cell, those of torch: W [G·H, n], U [G·H, H], b and d [G·H]. Every column goes its own way,
// and its results do not depend on how many others there are.

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
    x = x > 87.0f ? x - x + 87.0f : x;
    x = x < -87.0f ? x - x - 87.0f : x;
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

// Part of c = start + a·b with a [R, k] and b [k, n]: R rows, C vectors, the last of them w numbers. Rows of a,
// b, start and c are of_a, of_b, of_start and of_c apart, the numbers in a row of a by_a.
template <int R, int C>
static INLINE void block(long k, const float *a, long of_a, long by_a, const float *b, long of_b, const float *start,
                         long of_start, float *c, long of_c, long w)
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
static void sum_of_products(long k, long m, long n, const float *a, long of_a, const float *b, long of_b, float *c)
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

// A step of an LSTM for one column, from what is under its gates, where these are written: see lstm_forward.
static INLINE void lstm_cell(long H, float *q, const float *old, float keep, float *y, float *c, float *squashed)
{
    along(H, [&](long j, long w) __attribute__((always_inline)) {
        Vector i = sigmoid(load(q + j, w)), f = sigmoid(load(q + H + j, w));
        Vector s = sigmoid(load(q + 2 * H + j, w)), o = sigmoid(load(q + 3 * H + j, w));
        Vector now = i - 2.0f * i * s + f * (load(old + j, w) * keep), out = tanh_of(now);
        store(q + j, i, w), store(q + H + j, f, w), store(q + 2 * H + j, s, w), store(q + 3 * H + j, o, w);
        store(c + j, now, w), store(squashed + j, out, w), store(y + j, o * out, w);
    });
}

// A step of a GRU for one column, from what is under its gates, where these are written: see gru_forward.
static INLINE void gru_cell(long H, float *g, const float *m, float *y, float *found)
{
    along(H, [&](long j, long w) __attribute__((always_inline)) {
        Vector r = sigmoid(load(g + j, w)), z = sigmoid(load(g + H + j, w));
        Vector n = tanh_of(load(g + 3 * H + j, w) + r * load(g + 2 * H + j, w));
        store(g + j, r, w), store(g + H + j, z, w), store(found + j, n, w);
        store(y + j, n + z * (load(m + j, w) - n), w);
    });
}

// The weights of a cell as steps take them: those of h, x and 1 for q [H + n + 1, 4·H].
typedef std::vector<float> Arranged;
typedef const float *const *Weights;

static Arranged arranged_lstm(long H, long n, Weights own, float of_g)
{
    Arranged A((H + n + 1) * 4 * H);
    for (long gate = 0; gate < 4; gate++) {
        float factor = gate == 2 ? of_g : 1.0f, *to = A.data() + gate * H;
        turn(H, n, own[0] + gate * H * n, factor, to + H * 4 * H, 4 * H);
        turn(H, H, own[1] + gate * H * H, factor, to, 4 * H);
        for (long j = 0; j < H; j++)
            to[(H + n) * 4 * H + j] = factor * (own[2][gate * H + j] + own[3][gate * H + j]);
    }
    return A;
}

static Arranged arranged_gru(long H, long n, Weights own)
{
    Arranged A((H + n + 1) * 4 * H);
    float *of_1 = A.data() + (H + n) * 4 * H;
    for (long gate = 0; gate < 3; gate++) {
        long place = gate == 2 ? 3 : gate; // W·x + b of n stands alone
        turn(H, n, own[0] + gate * H * n, 1.0f, A.data() + H * 4 * H + place * H, 4 * H);
        turn(H, H, own[1] + gate * H * H, 1.0f, A.data() + gate * H, 4 * H);
        for (long j = 0; j < H; j++) of_1[place * H + j] += own[2][gate * H + j];
        for (long j = 0; j < H; j++) of_1[gate * H + j] += own[3][gate * H + j];
    }
    return A;
}

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

// The gradients of a cell's weights from that of q, for `rows` rows of x and m: G blocks of it are of U·h + d,
// and of W·x + b the first G − 1 and the last.
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

extern "C" {

void lstm_weights(long N, long H, long n, Weights weights, float *A)
{
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        Arranged own = arranged_lstm(H, n, weights + 4 * i, -2.0f);
        std::memcpy(A, own.data(), own.size() * sizeof(float));
    }
}

// From memories before the first step [N, B, 2·H]: writes h' to y, the memory that every step found to m, c',
// tanh c' and the four gates, of g in place of tanh a the σ(−2a) that it is 1 − 2 times.
void lstm_forward(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
                  const float *state, float *y, float *m, float *c, float *squashed, float *gates)
{
    for (long i = 0; i < N; i++) {
        Arranged A = arranged_lstm(H, n, weights + 4 * i, -2.0f);
        const float *h = state + i * B * 2 * H, *old = h + H;
        long apart = 2 * H; // rows of h and old
        for (long t = 0; t < T; t++) {
            long at = (i * T + t) * B * H;
            const float *k = keep + t * B;
            float *q = gates + 4 * at;
            kept(B, H, h, apart, k, m + at);
            from_x(B, H, n, x + t * B * n, n, A.data(), q);
            product(B, H, 4 * H, m + at, H, A.data(), 4 * H, q, 4 * H, q, 4 * H);
            for (long b = 0; b < B; b++) {
                long row = at + b * H;
                lstm_cell(H, gates + 4 * row, old + b * apart, k[b], y + row, c + row, squashed + row);
            }
            h = y + at, old = c + at, apart = H;
        }
    }
}

// What follows from a step of an LSTM for small changes: ∂c'/∂q of i, f and g, ∂h'/∂q of o, ∂h'/∂c', ∂c'/∂c.
struct Slopes { Vector i, f, g, o, by_c, back; };

static INLINE Slopes lstm_slopes(const float *q, const float *y, const float *c, const float *squashed, long H,
                                 float keep, long j, long w)
{
    Vector i = load(q + j, w), f = load(q + H + j, w), s = load(q + 2 * H + j, w), o = load(q + 3 * H + j, w);
    Vector out = load(y + j, w), added = i - 2.0f * i * s, old = load(c + j, w) - added; // c' = i·g + f·c
    return {added - added * i, old - old * f, i - added + 2.0f * added * s, out - out * o,
            o - out * load(squashed + j, w), f * keep};
}

// From the gradient of y to those of q and the weights.
void lstm_pull(long N, long T, long B, long H, long n, const float *grad, const float *keep, Weights weights,
               const float *x, const float *y, const float *m, const float *c, const float *squashed, const float *gates, float *dq, float *dW, float *dU, float *db, float *dd)
{
    std::vector<float> room(2 * B * H), none(B * H);
    float *dm = room.data(), *dc = dm + B * H;
    for (long i = 0; i < N; i++) {
        std::memset(dm, 0, 2 * B * H * sizeof(float));
        for (long t = T - 1; t >= 0; t--) {
            long at = (i * T + t) * B * H;
            for (long b = 0; b < B; b++) {
                float goes_on = t + 1 < T ? keep[(t + 1) * B + b] : 0.0f, k = keep[t * B + b];
                long row = at + b * H;
                const float *q = gates + 4 * row;
                float *to = dq + 4 * row, *of_m = dm + b * H, *of_c = dc + b * H;
                along(H, [&](long j, long w) __attribute__((always_inline)) {
                    Slopes by = lstm_slopes(q, y + row, c + row, squashed + row, H, k, j, w);
                    Vector dh = load(grad + row + j, w) + load(of_m + j, w) * goes_on;
                    Vector d = load(of_c + j, w) + dh * by.by_c;
                    store(to + j, d * by.i, w), store(to + H + j, d * by.f, w);
                    store(to + 2 * H + j, d * by.g, w), store(to + 3 * H + j, dh * by.o, w);
                    store(of_c + j, d * by.back, w);
                });
            }
            product(B, 4 * H, H, dq + 4 * at, 4 * H, weights[4 * i + 1], H, none.data(), H, dm, H);
        }
        gradients(T * B, H, 4, n, x, m + i * T * B * H, dq + i * T * B * 4 * H, dW + i * 4 * H * n,
                  dU + i * 4 * H * H, db + i * 4 * H, dd + i * 4 * H);
    }
}

// From changes of the weights, and `more` [N, T, B, 4·H] of q if there is any, to that of y: lstm_pull transposed.
void lstm_push(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
               Weights changes, const float *more, const float *y, const float *m, const float *c,
               const float *squashed, const float *gates, float *dy)
{
    std::vector<float> room(6 * B * H);
    float *dm = room.data(), *dc = dm + B * H, *dq = dc + B * H;
    for (long i = 0; i < N; i++) {
        Arranged A = arranged_lstm(H, n, weights + 4 * i, 1.0f), D = arranged_lstm(H, n, changes + 4 * i, 1.0f);
        std::memset(dm, 0, 2 * B * H * sizeof(float));
        for (long t = 0; t < T; t++) {
            long at = (i * T + t) * B * H;
            if (t) kept(B, H, dy + at - B * H, H, keep + t * B, dm);
            changed(B, H, 4, n, x + t * B * n, m + at, dm, A, D, more ? more + 4 * at : nullptr, dq);
            for (long b = 0; b < B; b++) {
                long row = at + b * H;
                const float *q = gates + 4 * row, *of_q = dq + 4 * b * H;
                float *of_c = dc + b * H;
                along(H, [&](long j, long w) __attribute__((always_inline)) {
                    Slopes by = lstm_slopes(q, y + row, c + row, squashed + row, H, keep[t * B + b], j, w);
                    Vector d = load(of_q + j, w) * by.i + load(of_q + H + j, w) * by.f +
                               load(of_q + 2 * H + j, w) * by.g + load(of_c + j, w) * by.back;
                    store(of_c + j, d, w);
                    store(dy + row + j, load(of_q + 3 * H + j, w) * by.o + d * by.by_c, w);
                });
            }
        }
    }
}

void gru_weights(long N, long H, long n, Weights weights, float *A)
{
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        Arranged own = arranged_gru(H, n, weights + 4 * i);
        std::memcpy(A, own.data(), own.size() * sizeof(float));
    }
}

// From memories before the first step [N, B, H]: writes h' to y, the memory that every step found to m, n to
// `found`, and r, z, U·h + d of n and W·x + b of n to gates [N, T, B, 4·H].
void gru_forward(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
                 const float *state, float *y, float *m, float *found, float *gates)
{
    for (long i = 0; i < N; i++) {
        Arranged A = arranged_gru(H, n, weights + 4 * i);
        const float *h = state + i * B * H;
        for (long t = 0; t < T; t++) {
            long at = (i * T + t) * B * H;
            float *q = gates + 4 * at;
            kept(B, H, h, H, keep + t * B, m + at);
            from_x(B, H, n, x + t * B * n, n, A.data(), q);
            product(B, H, 3 * H, m + at, H, A.data(), 4 * H, q, 4 * H, q, 4 * H);
            for (long b = 0; b < B; b++) {
                long row = at + b * H;
                gru_cell(H, gates + 4 * row, m + row, y + row, found + row);
            }
            h = y + at;
        }
    }
}

// What follows from a step of a GRU for small changes: ∂h'/∂q of r, z, d of n and W·x + b of n, and ∂h'/∂h.
struct Turns { Vector r, z, n, x, back; };

static INLINE Turns gru_slopes(const float *g, const float *y, const float *found, long H, long j, long w)
{
    Vector r = load(g + j, w), z = load(g + H + j, w), a = load(g + 2 * H + j, w), n = load(found + j, w);
    Vector gap = load(y + j, w) - n, bend = 1.0f - n * n; // gap = z·(h − n)
    Vector by_x = bend - bend * z, by_n = by_x * r, of_r = by_n * a;
    return {of_r - of_r * r, gap - gap * z, by_n, by_x, z};
}

// From the gradient of y to those of q and the weights.
void gru_pull(long N, long T, long B, long H, long n, const float *grad, const float *keep, Weights weights,
               const float *x, const float *y, const float *m, const float *found, const float *gates, float *dq, float *dW, float *dU, float *db, float *dd)
{
    std::vector<float> room(2 * B * H);
    float *dm = room.data(), *past = dm + B * H;
    for (long i = 0; i < N; i++) {
        std::memset(dm, 0, B * H * sizeof(float));
        for (long t = T - 1; t >= 0; t--) {
            long at = (i * T + t) * B * H;
            for (long b = 0; b < B; b++) {
                float goes_on = t + 1 < T ? keep[(t + 1) * B + b] : 0.0f;
                long row = at + b * H;
                float *to = dq + 4 * row;
                along(H, [&](long j, long w) __attribute__((always_inline)) {
                    Turns by = gru_slopes(gates + 4 * row, y + row, found + row, H, j, w);
                    Vector dh = load(grad + row + j, w) + load(dm + b * H + j, w) * goes_on;
                    store(to + j, dh * by.r, w), store(to + H + j, dh * by.z, w);
                    store(to + 2 * H + j, dh * by.n, w), store(to + 3 * H + j, dh * by.x, w);
                    store(past + b * H + j, dh * by.back, w);
                });
            }
            product(B, 3 * H, H, dq + 4 * at, 4 * H, weights[4 * i + 1], H, past, H, dm, H);
        }
        gradients(T * B, H, 3, n, x, m + i * T * B * H, dq + i * T * B * 4 * H, dW + i * 3 * H * n,
                  dU + i * 3 * H * H, db + i * 3 * H, dd + i * 3 * H);
    }
}

// From changes of the weights, and `more` [N, T, B, 4·H] of q if there is any, to that of y: gru_pull transposed.
void gru_push(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
              Weights changes, const float *more, const float *y, const float *m, const float *found,
              const float *gates, float *dy)
{
    std::vector<float> room(5 * B * H);
    float *dm = room.data(), *dq = dm + B * H;
    for (long i = 0; i < N; i++) {
        Arranged A = arranged_gru(H, n, weights + 4 * i), D = arranged_gru(H, n, changes + 4 * i);
        std::memset(dm, 0, B * H * sizeof(float));
        for (long t = 0; t < T; t++) {
            long at = (i * T + t) * B * H;
            if (t) kept(B, H, dy + at - B * H, H, keep + t * B, dm);
            changed(B, H, 3, n, x + t * B * n, m + at, dm, A, D, more ? more + 4 * at : nullptr, dq);
            for (long b = 0; b < B; b++) {
                long row = at + b * H;
                const float *of_q = dq + 4 * b * H;
                along(H, [&](long j, long w) __attribute__((always_inline)) {
                    Turns by = gru_slopes(gates + 4 * row, y + row, found + row, H, j, w);
                    Vector d = load(of_q + j, w) * by.r + load(of_q + H + j, w) * by.z +
                               load(of_q + 2 * H + j, w) * by.n + load(of_q + 3 * H + j, w) * by.x;
                    store(dy + row + j, d + load(dm + b * H + j, w) * by.back, w);
                });
            }
        }
    }
}

// One step of B columns: of memories `before` [B, N, K], which count as 0 where `start` [B] is 1, and the first
// n numbers of seen [B, n + H]; the others become the outputs of the first cell. A is of lstm_weights.
void lstm_act(long N, long B, long H, long n, const float *before, const uint8_t *start, const float *A,
              float *seen, float *after)
{
    std::vector<float> room(5 * B * H + H), keep = going_on(B, start);
    float *m = room.data(), *q = m + B * H, *squashed = q + 4 * B * H;
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        const float *h = before + i * 2 * H;
        kept(B, H, h, N * 2 * H, keep.data(), m);
        from_x(B, H, n, seen, n + H, A, q);
        product(B, H, 4 * H, m, H, A, 4 * H, q, 4 * H, q, 4 * H);
        for (long b = 0; b < B; b++) {
            float *to = after + (b * N + i) * 2 * H;
            lstm_cell(H, q + b * 4 * H, h + b * N * 2 * H + H, keep[b], to, to + H, squashed);
        }
    }
    shown(B, n, H, after, N * 2 * H, seen);
}

void gru_act(long N, long B, long H, long n, const float *before, const uint8_t *start, const float *A,
             float *seen, float *after)
{
    std::vector<float> room(5 * B * H + H), keep = going_on(B, start);
    float *m = room.data(), *q = m + B * H, *found = q + 4 * B * H;
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        kept(B, H, before + i * H, N * H, keep.data(), m);
        from_x(B, H, n, seen, n + H, A, q);
        product(B, H, 3 * H, m, H, A, 4 * H, q, 4 * H, q, 4 * H);
        for (long b = 0; b < B; b++)
            gru_cell(H, q + b * 4 * H, m + b * H, after + (b * N + i) * H, found);
    }
    shown(B, n, H, after, N * H, seen);
}
}
