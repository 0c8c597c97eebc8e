// A GRU over whole sequences, as `gru.py` calls it; what arrays are is said in vectors.h.

#include "vectors.h"

static Arranged arranged(long H, long n, Weights own)
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

// A step of a GRU for one column, from what is under its gates, where these are written: see `forward`.
static INLINE void cell(long H, float *g, const float *m, float *y, float *found)
{
    along(H, [&](long j, long w) __attribute__((always_inline)) {
        Vector r = sigmoid(load(g + j, w)), z = sigmoid(load(g + H + j, w));
        Vector n = tanh_of(load(g + 3 * H + j, w) + r * load(g + 2 * H + j, w));
        store(g + j, r, w), store(g + H + j, z, w), store(found + j, n, w);
        store(y + j, n + z * (load(m + j, w) - n), w);
    });
}

// What follows from a step of a GRU for small changes: ∂h'/∂q of r, z, d of n and W·x + b of n, and ∂h'/∂h.
struct Slopes { Vector r, z, n, x, back; };

static INLINE Slopes slopes(const float *g, const float *y, const float *found, long H, long j, long w)
{
    Vector r = load(g + j, w), z = load(g + H + j, w), a = load(g + 2 * H + j, w), n = load(found + j, w);
    Vector gap = load(y + j, w) - n, bend = 1.0f - n * n; // gap = z·(h − n)
    Vector by_x = bend - bend * z, by_n = by_x * r, of_r = by_n * a;
    return {of_r - of_r * r, gap - gap * z, by_n, by_x, z};
}

extern "C" {

void weights(long N, long H, long n, Weights weights, float *A)
{
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        Arranged own = arranged(H, n, weights + 4 * i);
        std::memcpy(A, own.data(), own.size() * sizeof(float));
    }
}

// From memories before the first step [N, B, H]: writes h' to y, the memory that every step found to m, n
// to `found`, and r, z, U·h + d of n and W·x + b of n to gates [N, T, B, 4·H].
void forward(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
             const float *state, float *y, float *m, float *found, float *gates)
{
    for (long i = 0; i < N; i++) {
        Arranged A = arranged(H, n, weights + 4 * i);
        const float *h = state + i * B * H;
        for (long t = 0; t < T; t++) {
            long at = (i * T + t) * B * H;
            float *q = gates + 4 * at;
            kept(B, H, h, H, keep + t * B, m + at);
            from_x(B, H, n, x + t * B * n, n, A.data(), q);
            product(B, H, 3 * H, m + at, H, A.data(), 4 * H, q, 4 * H, q, 4 * H);
            for (long b = 0; b < B; b++) {
                long row = at + b * H;
                cell(H, gates + 4 * row, m + row, y + row, found + row);
            }
            h = y + at;
        }
    }
}

// From the gradient of y to those of q and the weights.
void pull(long N, long T, long B, long H, long n, const float *grad, const float *keep, Weights weights,
          const float *x, const float *y, const float *m, const float *found, const float *gates, float *dq,
          float *dW, float *dU, float *db, float *dd)
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
                    Slopes by = slopes(gates + 4 * row, y + row, found + row, H, j, w);
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

// From changes of the weights, and `more` [N, T, B, 4·H] of q if there is any, to that of y: `pull`
// transposed.
void push(long N, long T, long B, long H, long n, const float *x, const float *keep, Weights weights,
          Weights changes, const float *more, const float *y, const float *m, const float *found, const float *gates,
          float *dy)
{
    std::vector<float> room(5 * B * H);
    float *dm = room.data(), *dq = dm + B * H;
    for (long i = 0; i < N; i++) {
        Arranged A = arranged(H, n, weights + 4 * i), D = arranged(H, n, changes + 4 * i);
        std::memset(dm, 0, B * H * sizeof(float));
        for (long t = 0; t < T; t++) {
            long at = (i * T + t) * B * H;
            if (t) kept(B, H, dy + at - B * H, H, keep + t * B, dm);
            changed(B, H, 3, n, x + t * B * n, m + at, dm, A, D, more ? more + 4 * at : nullptr, dq);
            for (long b = 0; b < B; b++) {
                long row = at + b * H;
                const float *of_q = dq + 4 * b * H;
                along(H, [&](long j, long w) __attribute__((always_inline)) {
                    Slopes by = slopes(gates + 4 * row, y + row, found + row, H, j, w);
                    Vector d = load(of_q + j, w) * by.r + load(of_q + H + j, w) * by.z +
                               load(of_q + 2 * H + j, w) * by.n + load(of_q + 3 * H + j, w) * by.x;
                    store(dy + row + j, d + load(dm + b * H + j, w) * by.back, w);
                });
            }
        }
    }
}

// One step of B columns: see lstm.cpp.
void act(long N, long B, long H, long n, const float *before, const uint8_t *start, const float *A,
         float *seen, float *after)
{
    std::vector<float> room(5 * B * H + H), keep = going_on(B, start);
    float *m = room.data(), *q = m + B * H, *found = q + 4 * B * H;
    for (long i = 0; i < N; i++, A += (H + n + 1) * 4 * H) {
        kept(B, H, before + i * H, N * H, keep.data(), m);
        from_x(B, H, n, seen, n + H, A, q);
        product(B, H, 3 * H, m, H, A, 4 * H, q, 4 * H, q, 4 * H);
        for (long b = 0; b < B; b++)
            cell(H, q + b * 4 * H, m + b * H, after + (b * N + i) * H, found);
    }
    shown(B, n, H, after, N * H, seen);
}
}
