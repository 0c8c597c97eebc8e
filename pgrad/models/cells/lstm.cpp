// An LSTM over whole sequences, as `lstm.py` calls it; what arrays are is said in vectors.h.

#include "vectors.h"

static Arranged arranged(long H, long n, Weights own, float of_g)
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

// A step of an LSTM for one column, from what is under its gates, where these are written: see `forward`.
static INLINE void cell(long H, float *q, const float *old, float keep, float *y, float *c, float *squashed)
{
    along(H, [&](long j, long w) __attribute__((always_inline)) {
        Vector i = sigmoid(load(q + j, w)), f = sigmoid(load(q + H + j, w));
        Vector s = sigmoid(load(q + 2 * H + j, w)), o = sigmoid(load(q + 3 * H + j, w));
        Vector now = i - 2.0f * i * s + f * (load(old + j, w) * keep), out = tanh_of(now);
        store(q + j, i, w), store(q + H + j, f, w), store(q + 2 * H + j, s, w), store(q + 3 * H + j, o, w);
        store(c + j, now, w), store(squashed + j, out, w), store(y + j, o * out, w);
    });
}

// What follows from a step of an LSTM for small changes: ∂c'/∂q of i, f and g, ∂h'/∂q of o, ∂h'/∂c',
// ∂c'/∂c.
struct Slopes { Vector i, f, g, o, by_c, back; };

static INLINE Slopes slopes(const float *q, const float *y, const float *c, const float *squashed, long H,
                            float keep, long j, long w)
{
    Vector i = load(q + j, w), f = load(q + H + j, w), s = load(q + 2 * H + j, w), o = load(q + 3 * H + j, w);
    Vector out = load(y + j, w), added = i - 2.0f * i * s, old = load(c + j, w) - added; // c' = i·g + f·c
    return {added - added * i, old - old * f, i - added + 2.0f * added * s, out - out * o,
            o - out * load(squashed + j, w), f * keep};
}

extern "C" {

void weights(long N, long H, long n, Weights weights, float *A)
{
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        Arranged own = arranged(H, n, weights + 4 * i, -2.0f);
        std::memcpy(A, own.data(), own.size() * sizeof(float));
    }
}

// From memories before the first step [N, B, 2·H]: writes h' to y, the memory that every step found to m,
// c', tanh c' and the four gates, of g in place of tanh a the σ(−2a) that it is 1 − 2 times.
void forward(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
             const float *state, float *y, float *m, float *c, float *squashed, float *gates)
{
    for (long i = 0; i < N; i++) {
        Arranged A = arranged(H, n, weights + 4 * i, -2.0f);
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
                cell(H, gates + 4 * row, old + b * apart, k[b], y + row, c + row, squashed + row);
            }
            h = y + at, old = c + at, apart = H;
        }
    }
}

// From the gradient of y to those of q and the weights.
void pull(long N, long T, long B, long H, long n, const float *grad, const float *keep, Weights weights,
          const float *x, const float *y, const float *m, const float *c, const float *squashed,
          const float *gates, float *dq, float *dW, float *dU, float *db, float *dd)
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
                    Slopes by = slopes(q, y + row, c + row, squashed + row, H, k, j, w);
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

// From changes of the weights, and `more` [N, T, B, 4·H] of q if there is any, to that of y: `pull`
// transposed.
void push(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
          Weights changes, const float *more, const float *y, const float *m, const float *c, const float *squashed,
          const float *gates, float *dy)
{
    std::vector<float> room(6 * B * H);
    float *dm = room.data(), *dc = dm + B * H, *dq = dc + B * H;
    for (long i = 0; i < N; i++) {
        Arranged A = arranged(H, n, weights + 4 * i, 1.0f);
        Arranged D = arranged(H, n, changes + 4 * i, 1.0f);
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
                    Slopes by = slopes(q, y + row, c + row, squashed + row, H, keep[t * B + b], j, w);
                    Vector d = load(of_q + j, w) * by.i + load(of_q + H + j, w) * by.f +
                               load(of_q + 2 * H + j, w) * by.g + load(of_c + j, w) * by.back;
                    store(of_c + j, d, w);
                    store(dy + row + j, load(of_q + 3 * H + j, w) * by.o + d * by.by_c, w);
                });
            }
        }
    }
}

// One step of B columns: of memories `before` [B, N, K], which count as 0 where `start` [B] is 1, and the
// first n numbers of seen [B, n + H]; the others become the outputs of the first cell. A is of `weights`.
void act(long N, long B, long H, long n, const float *before, const uint8_t *start, const float *A,
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
            cell(H, q + b * 4 * H, h + b * N * 2 * H + H, keep[b], to, to + H, squashed);
        }
    }
    shown(B, n, H, after, N * 2 * H, seen);
}
}
