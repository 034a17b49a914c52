// The fused CUDA kernels: gradient descent on uint8 pixels in integers, many iterations in one cooperative launch.
//
// Weights and residuals are whole numbers V of 52 to 55 bits below a power of two (the fixed-point numbers of exact.py),
// cut into eight signed 8-bit digits: V = d0 + 2^8 d1 + .. + 2^56 d7. Tensor cores (compute capability 8.0 and later)
// multiply 16 x 32 pixels with 32 x 8 digits; without them dp4a multiplies four pixels with four digits. Both add up in
// 32 bits; a tile has too few terms to overflow that. From there on sums are pairs of 64-bit integers (low, high) that
// stand for low + 2^24 high: with 2^26 terms, |low| < 2^58 and |high| < 2^63. Integer sums have no order, so blocks add
// theirs by atomics; they are rounded in two places, `total_of` and `scale_and_shift`. Everything else repeats the
// float64 operations of elementary.py and reference.py in their order; compile with --fmad=false.
//
// The grid of the residuals and losses follows from the largest residual, which is known when all are: the one of the
// iteration before is taken, and where that was wrong, seldom, the turn is done again with the right one.
//
// The pixels are divided into tiles (samples x features), each worked on in shared memory:
//
// descend_in_tiles     Resident: one tile a block, which stays there for all iterations; two grid barriers an iteration.
//                      Otherwise blocks take turns at the tiles, forward and, from the last to the first, backward;
//                      four barriers an iteration.
// descend_in_one_read  Tiles are whole samples; each is read once an iteration, used forward and then backward, while
//                      the next is on its way. One model; two barriers.
//
// The host puts EXP_COEFFICIENTS, LOG_COEFFICIENTS and the other constants of the Python modules before this text.
// With XLOGREG_EMULATED the tests compile it as C++ and run it on the processor.

typedef unsigned char u8;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define DIGITS 8
#define RESIDUAL_DIGITS 7  // residuals have 52 bits: without tensor cores, which multiply eight, there are fewer to hold
#define TOTALS 5          // residuals: low, high; losses: three pieces
#define OUT_OF_RANGE (1024 + LARGEST_EXPONENT)  // the size of a residual whose z is: its exponent is beyond the largest
#define MOST_TERMS 65536  // of 32-bit sums: 255 * 128 * 65536 < 2^31
#define COUNTER_WORDS 16  // the grid barrier's counter has 128 bytes for itself: everybody looks at it all the time

// The emulator compiles both.
#ifndef TENSOR_CORES
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define TENSOR_CORES 0
#else
#define TENSOR_CORES 1
#endif
#endif

#if TENSOR_CORES
#define ONE_READ_THREADS ONE_READ_THREADS_TENSOR
#define INLINE_IF_ROOM __forceinline__
#else
#define ONE_READ_THREADS ONE_READ_THREADS_DP4A
#define INLINE_IF_ROOM __noinline__  // there are few registers for each of many threads
#endif

#ifndef XLOGREG_EMULATED
extern __shared__ uint4 shared_memory[];
#define METHOD __device__ __forceinline__  // of a structure

__device__ __forceinline__ int dp4a(u32 pixels, u32 digits, int sum) {
    int result;
    asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(pixels), "r"(digits), "r"(sum));
    return result;
}

#if TENSOR_CORES
// sums[row][digit] += 16 x 32 pixels times 32 x 8 digits, spread over the warp as PTX has it for m16n8k32: with
// g = lane / 4 and q = lane % 4, a0 .. a3 are pixels 4q .. 4q + 3 of row g, of row g + 8, and 16 columns on of both;
// b0 and b1 are those digits g that belong to them; sums are of digits 2q, 2q + 1 of row g and of row g + 8.
__device__ __forceinline__ void multiply(int (&sums)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#endif

// Adds 1 after everything that this thread, and those it has met at __syncthreads, wrote before.
__device__ __forceinline__ void arrive(u32* counter) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(counter) : "memory");
}

__device__ __forceinline__ u32 load_acquire(const u32* address) {
    u32 value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(address) : "memory");
    return value;
}

// Copies 16 bytes to shared memory without waiting, where the device can; copies_arrived() waits for all of them.
__device__ __forceinline__ void copy_16_bytes(uint4* target, const uint4* source) {
#if __CUDA_ARCH__ >= 800
    u32 address = (u32)__cvta_generic_to_shared(target);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(source) : "memory");
#else
    *target = *source;
#endif
}

__device__ __forceinline__ void copies_arrived() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}

__device__ __forceinline__ void spinning() {}
#endif

struct Sum {
    i64 low, high;
};

// What the host hands over; workspace and shared memory are laid out by the same rules in cuda.py.
struct Job {
    const u8* pixels;     // (m, d), rows `pitch` bytes apart
    const double* sign;   // (models, m)
    double* w;            // (models, d)
    double* b;            // (models)
    const double* rates;  // (models)
    double* costs;        // (iterations, models)
    double* dw;           // (models, d)
    double* db;           // (models)
    int* exponents;       // (models, 2): of weights and residuals, as far as known
    u64* digits;          // (models, m): the residuals' digits, when tiles are not resident
    i64 m, d, pitch;
    int models, iterations, tile_rows, tile_columns;
    // Workspace, zeros at the launch. Buffers are used in turn, so that clearing one needs no barrier of its own.
    u32* counter;         // of the grid barrier
    Sum* w_sums;          // (2, models, d)
    u64* totals;          // (2, models, TOTALS)
    u32* largest;         // (2, models): of max|w|, as `size_of` has it
    u32* largest_residual;  // (2, models): of max|residual|
    Sum* z_sums;          // (3, models, m): of tiles alone
};

// The pieces of losses times 2^-e, where e is the residuals' exponent: piece k is a multiple of 2^exponents[k].
struct LossGrid {
    int exponents[3];
};

__device__ __forceinline__ i64 smaller(i64 a, i64 b) { return a < b ? a : b; }
__device__ __forceinline__ i64 larger(i64 a, i64 b) { return a > b ? a : b; }
__device__ __forceinline__ i64 divide_up(i64 a, i64 b) { return (a + b - 1) / b; }

__device__ __forceinline__ double power_of_two(int exponent) {
    return __longlong_as_double((i64)(exponent + 1023) << 52);
}

__device__ double not_a_number() { return __longlong_as_double(0x7ff8000000000000LL); }

// ---- the arithmetic of elementary.py, exact.py, reference.py

__device__ __forceinline__ double exp_negative(double x) {
    constexpr double coefficients[] = EXP_COEFFICIENTS;
    constexpr int last = sizeof(coefficients) / sizeof(double) - 1;
    x = x < EXP_FLOOR ? EXP_FLOOR : x;  // NaN stays
    double k = (x * LOG2_E + 6755399441055744.0) - 6755399441055744.0;
    double high = x - k * LN2_HIGH;
    double low = k * LN2_LOW;
    double r = high - low;
    double c = (high - r) - low;
    double q = r * coefficients[0];
#pragma unroll
    for (int i = 1; i < last; ++i) q = (q + coefficients[i]) * r;
    q = (q + coefficients[last]) * (r * r);
    q = ((q + c) + r) + 1.0;
    return k == k ? q * power_of_two((int)k) : k;
}

__device__ __forceinline__ double log1p_unit(double t) {
    constexpr double coefficients[] = LOG_COEFFICIENTS;
    constexpr int count = sizeof(coefficients) / sizeof(double);
    bool upper = t >= 0.5;
    double f = upper ? (t - 1.0) * 0.5 : t;
    double s = f / (f + 2.0);
    double s2 = s * s;
    double series = s2 * coefficients[0];
#pragma unroll
    for (int i = 1; i < count; ++i) series = (series + coefficients[i]) * s2;
    double half_square = (f * f) * 0.5;
    series = (series + half_square) * s;
    series = series + (upper ? LN2_LOW : 0.0);
    f = f - (half_square - series);
    return f + (upper ? LN2_HIGH : 0.0);
}

// low + 2^24 high as float64, rounded once: the twin of products.round_whole.
__device__ __forceinline__ double total_of(i64 low, i64 high) {
    high += low >> 24;
    low &= (1 << 24) - 1;
    return (double)(high >> 12) * 68719476736.0 + (double)(((high & 4095) << 24) | low);
}

// The eight signed digits of |V| <= 2^55, in its bytes: a carry goes up wherever a digit is 128 or more.
__device__ __forceinline__ u64 digits_of(i64 v) {
    return ((u64)v + 0x80808080808080ULL) ^ 0x80808080808080ULL;
}

// What is wanted to know of |w|: its exponent, 0 for zero.
__device__ __forceinline__ u32 size_of(double weight) {
    u64 bits = (u64)__double_as_longlong(fabs(weight));
    return bits == 0 ? 0 : 1 + (u32)(bits >> 52);
}

// The smallest e with max|w| < 2^e, from the largest size: 0 for 0, at least MIN_EXPONENT.
__device__ __forceinline__ int exponent_of(u32 size) {
    int exponent = (int)size - 1023;
    return size == 0 ? 0 : exponent < MIN_EXPONENT ? MIN_EXPONENT : exponent;
}

__device__ LossGrid loss_grid(i64 m) {
    int length = 52;
    while (((i64)1 << (52 - length)) < m) --length;  // 52 - ceil(log2 m)
    length = length < 51 ? length : 51;
    LossGrid grid;
    for (int k = 0; k < 3; ++k)
        grid.exponents[k] = LOSS_ABOVE - (length * (k + 1) < LOSS_BITS ? length * (k + 1) : LOSS_BITS);
    return grid;
}

// Rounds the rest to a piece that is a multiple of 2^exponent; returns how many times it is.
__device__ __forceinline__ i64 take_piece(double& rest, int exponent) {
    double constant = 1.5 * power_of_two(52 + exponent);
    double piece = (rest + constant) - constant;
    rest = rest - piece;
    return __double2ll_rn(piece * power_of_two(-exponent));
}

// What is kept of weights, as exact.weight_bits has it.
__device__ __forceinline__ int weight_bits(i64 d) { return d <= FEW ? WEIGHT_BITS_OF_FEW : WEIGHT_BITS; }

// What turns the sums of weights with this exponent into numbers; NaN where the largest weight is too large or no number.
__device__ __forceinline__ double scale_of(int exponent, i64 d) {
    return exponent > LARGEST_EXPONENT ? not_a_number() : power_of_two(exponent - weight_bits(d));
}

// ((low + 2^24 high) scale) / 255 + shift, rounded once: the twin of exact.scale_and_shift.
__device__ INLINE_IF_ROOM double scale_and_shift(i64 low, i64 high, double scale, double shift) {
    high += low >> 24;
    low &= (1 << 24) - 1;
    double upper = (double)(high >> 12) * 68719476736.0 * scale, lower = (double)(((high & 4095) << 24) | low) * scale;
    double total = upper + lower;
    double rest = lower - (total - upper);
    double q = total / PIXEL_SCALE;
    double remainder = ((total - q * 256.0) + q) + rest;
    double z = q + shift;
    double part = z - q;
    return z + (((q - (z - part)) + (shift - part)) + remainder / PIXEL_SCALE);
}

// Sigmoid and, if asked for, loss and size of one sample, added to the totals and the largest; returns the digits of its
// residual, which is hoped to lie below 2^exponent.
template <bool LOSS>
__device__ __forceinline__ u64 residual_of(Sum z, double scale, double bias, double sign, int exponent,
                                           const LossGrid& grid, i64* totals, u32& largest) {
    double v = sign * scale_and_shift(z.low, z.high, scale, bias);
    bool in_range = fabs(v) <= LARGEST_Z;
    double t = exp_negative(-fabs(v));
    double inverse = 1.0 / (t + 1.0);
    // NaN has no whole number; the cost will be NaN.
    double p = !in_range ? 0.0 : v >= 0.0 ? inverse : t * inverse;
    i64 residual = __double2ll_rn((sign * p) * power_of_two(PRODUCT_BITS - exponent));
    if (!LOSS) return digits_of(residual);
    largest = max(largest, in_range ? size_of(p) : OUT_OF_RANGE);
    double loss = ((v > 0.0 ? v : 0.0) + log1p_unit(t)) * power_of_two(-exponent);
    totals[0] += residual & ((1 << 24) - 1);
    totals[1] += residual >> 24;
#pragma unroll
    for (int k = 0; k < 3; ++k) totals[2 + k] += take_piece(loss, grid.exponents[k]);
    return digits_of(residual);
}

// ---- sums across threads and blocks

__device__ __forceinline__ void add(Sum* target, Sum sum) {
    atomicAdd((u64*)&target->low, (u64)sum.low);
    atomicAdd((u64*)&target->high, (u64)sum.high);
}

// What other blocks wrote must come from the cache that all share.
__device__ __forceinline__ Sum read(const Sum* source) {
    Sum sum;
    sum.low = __ldcg(&source->low);
    sum.high = __ldcg(&source->high);
    return sum;
}

// Adds the threads' totals to those of all blocks; all threads of the block come here.
__device__ void add_totals(u64* target, const i64* totals) {
#pragma unroll
    for (int i = 0; i < TOTALS; ++i) {
        i64 sum = totals[i];
        for (int lane = 16; lane > 0; lane >>= 1) sum += __shfl_xor_sync(0xffffffff, sum, lane);
        if ((threadIdx.x & 31) == 0 && sum != 0) atomicAdd(&target[i], (u64)sum);
    }
}

// All threads of the block come here.
__device__ void raise_largest(u32* target, u32 size) {
#if TENSOR_CORES
    size = __reduce_max_sync(0xffffffff, size);
#else
    for (int lane = 16; lane > 0; lane >>= 1) {
        u32 other = __shfl_xor_sync(0xffffffff, size, lane);
        size = other > size ? other : size;
    }
#endif
    if ((threadIdx.x & 31) == 0 && size != 0) atomicMax(target, size);
}

// All threads of all blocks come here; what they wrote before is seen by all after. The launch is cooperative: all
// blocks are resident, so waiting for them ends.
__device__ void grid_barrier(u32* counter, u32& target) {
    target += gridDim.x;
    __syncthreads();
    if (threadIdx.x == 0) {
        arrive(counter);
        while ((int)(load_acquire(counter) - target) < 0) spinning();
    }
    __syncthreads();
}

// Zeros, by all threads of the grid together.
__device__ void clear(Sum* target, i64 count) {
    Sum zero = {0, 0};
    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (i64)gridDim.x * blockDim.x) target[i] = zero;
}

// The sums that the next turn adds to; last read before the last barrier. And the largest weight of the next iteration.
__device__ void clear_sums(const Job& job, int turn, int iteration) {
    int buffer = (turn + 1) & 1;
    if (blockIdx.x == 0)
        for (int i = threadIdx.x; i < job.models; i += blockDim.x) job.largest[((iteration + 1) & 1) * job.models + i] = 0;
    clear(job.w_sums + (i64)buffer * job.models * job.d, job.models * job.d);
    if (blockIdx.x == 0) {
        for (int i = threadIdx.x; i < job.models * TOTALS; i += blockDim.x) job.totals[buffer * job.models * TOTALS + i] = 0;
        for (int i = threadIdx.x; i < job.models; i += blockDim.x) job.largest_residual[buffer * job.models + i] = 0;
    }
}

// ---- tiles in shared memory

// Rows of a tile are this many bytes apart: an odd number of 16-byte groups, so that neighbouring rows meet no bank twice.
__device__ __forceinline__ int stride_of(int columns) { return (columns / 16 | 1) * 16; }

// Pixels of rows first_row .. and columns first_column .. (a multiple of 16), zeros beyond the edges. Rows that are not a
// multiple of 16 bytes apart go byte by byte, several times as slowly; the host avoids it while it has the memory.
__device__ void load_tile(const Job& job, uint4* tile, i64 first_row, int rows, i64 first_column, int columns) {
    int stride = stride_of(columns), groups = columns / 16;
    const u8* corner = job.pixels + first_row * job.pitch + first_column;
    if (job.pitch % 16 == 0 && (u64)job.pixels % 16 == 0) {
        for (int i = threadIdx.x; i < rows * groups; i += blockDim.x) {
            int row = i / groups, group = i - row * groups;
            uint4* target = tile + row * (stride / 16) + group;
            if (first_row + row < job.m && first_column + 16 * group < job.pitch)
                copy_16_bytes(target, (const uint4*)(corner + row * job.pitch + 16 * group));
            else
                *target = make_uint4(0, 0, 0, 0);
        }
    } else {
        for (int i = threadIdx.x; i < rows * columns; i += blockDim.x) {
            int row = i / columns, column = i - row * columns;
            bool inside = first_row + row < job.m && first_column + column < job.d;
            ((u8*)tile)[row * stride + column] = inside ? corner[row * job.pitch + column] : 0;
        }
    }
}

// A block's way through tiles in shared memory: one that stays, or two, of which one arrives while the other is worked
// on. All threads call the methods together, which return to all of them.
struct Tiles {
    const Job& job;
    uint4* memory;
    i64 row_slabs, first, second;  // tiles that are in the two places; -1 for none
    int place;

    METHOD Tiles(const Job& job, uint4* memory) : job(job), memory(memory) {
        row_slabs = divide_up(job.m, job.tile_rows);
        first = second = -1;
        place = 0;
    }

    METHOD i64 row(i64 t) { return t % row_slabs * job.tile_rows; }
    METHOD i64 column(i64 t) { return t / row_slabs * job.tile_columns; }
    METHOD uint4* at(int where) { return memory + where * (job.tile_rows * (stride_of(job.tile_columns) / 16)); }

    // Tile t, which has arrived. Whoever worked on another must have reached a __syncthreads() since.
    METHOD const uint4* get(i64 t) {
        if ((place ? first : second) == t)
            place ^= 1;
        else if ((place ? second : first) != t)
            load(t, place);
        copies_arrived();
        __syncthreads();
        return at(place);
    }

    // Has tile t come to where the one that `get` gave last is not.
    METHOD void expect(i64 t) {
        if ((place ? first : second) != t) load(t, place ^ 1);
    }

    METHOD void load(i64 t, int where) {
        load_tile(job, at(where), row(t), job.tile_rows, column(t), job.tile_columns);
        if (where)
            second = t;
        else
            first = t;
    }
};

// Digits of the weights w[0 .. count - 1] times `up`, zeros up to `columns`: for each 16 features DIGITS x 16 bytes.
template <bool GLOBAL>
__device__ void cut_weights(const double* w, i64 count, int columns, double up, uint4* digits) {
    for (int j = threadIdx.x; j < columns; j += blockDim.x) {
        double weight = j < count ? (GLOBAL ? __ldcg(w + j) : w[j]) : 0.0;
        u64 cut = digits_of(__double2ll_rn(weight * up));
        u8* target = (u8*)(digits + j / 16 * DIGITS) + j % 16;
#pragma unroll
        for (int k = 0; k < DIGITS; ++k) target[16 * k] = (u8)(cut >> (8 * k));
    }
}

template <int COUNT>
__device__ __forceinline__ Sum join(const int (&sums)[COUNT]) {
    Sum sum;
    sum.low = (i64)sums[0] + ((i64)sums[1] << 8) + ((i64)sums[2] << 16);
    sum.high = (i64)sums[3] + ((i64)sums[4] << 8) + ((i64)sums[5] << 16) + ((i64)sums[6] << 24);
    if (COUNT == DIGITS) sum.high += (i64)sums[COUNT - 1] << 32;
    return sum;
}

__device__ __forceinline__ Sum sum_of_parts(const Sum* parts, int first, int step, int count) {
    Sum sum = parts[first];
    for (int part = 1; part < count; ++part) {
        sum.low += parts[first + part * step].low;
        sum.high += parts[first + part * step].high;
    }
    return sum;
}

// Four words of four features each, from four rows, to four features of four rows.
__device__ __forceinline__ void transpose(u32 a, u32 b, u32 c, u32 d, u32 (&feature)[4]) {
    u32 ab = __byte_perm(a, b, 0x5140), cd = __byte_perm(c, d, 0x5140);
    u32 ab2 = __byte_perm(a, b, 0x7362), cd2 = __byte_perm(c, d, 0x7362);
    feature[0] = __byte_perm(ab, cd, 0x5410), feature[1] = __byte_perm(ab, cd, 0x7632);
    feature[2] = __byte_perm(ab2, cd2, 0x5410), feature[3] = __byte_perm(ab2, cd2, 0x7632);
}

#if TENSOR_CORES
// ---- products by tensor cores: a warp works on 16 rows x 32 columns forward, 32 rows x 32 columns backward

#define TILE_PARTS 1
#define ONE_READ_PARTS(threads) ((threads) / 2)

// Residuals' digits go up to a multiple of 32 rows, the last of them zeros.
__device__ __forceinline__ int padded(int rows) { return (rows + 31) / 32 * 32; }

// Lane q of four multiplies rows 2q, 2q + 1, 2q + 8 and 2q + 9 of 16: so its neighbours' rows lie in other banks. The
// digits of such a quad lie together: (quads, 8, 4).
__device__ __forceinline__ void store_residual(u8* digits, int row, u64 cut) {
    u8* target = digits + (row / 16 * 4 + row % 8 / 2) * 32 + row % 16 / 8 * 2 + row % 2;
#pragma unroll
    for (int k = 0; k < DIGITS; ++k) target[4 * k] = (u8)(cut >> (8 * k));
}

// The sum of all digits from those that a lane has, 2q and 2q + 1 (q = lane % 4), in all four lanes.
__device__ __forceinline__ Sum join_lanes(int even, int odd) {
    int q = threadIdx.x & 3;
    Sum sum;
    sum.low = q == 0 ? (i64)even + ((i64)odd << 8) : q == 1 ? (i64)even << 16 : 0;
    sum.high = q == 0 ? 0 : q == 1 ? (i64)odd : q == 2 ? ((i64)even << 8) + ((i64)odd << 16)
                                                : ((i64)even << 24) + ((i64)odd << 32);
#pragma unroll
    for (int lane = 1; lane <= 2; lane <<= 1) {
        sum.low += __shfl_xor_sync(0xffffffff, sum.low, lane);
        sum.high += __shfl_xor_sync(0xffffffff, sum.high, lane);
    }
    return sum;
}

// Into how many parts the columns of each 16 rows are divided, one warp each.
__device__ __forceinline__ int forward_parts(int rows, int columns) {
    return (int)larger(1, smaller(blockDim.x / 32 / ((rows + 15) / 16), (columns + 31) / 32));
}

// parts[part * rows + row] = the sum over a part of the columns of pixels times the weights' digits.
__device__ void forward_tile(const uint4* tile, int rows, int columns, const uint4* digits, Sum* parts) {
    int groups = columns / 16, pairs = (groups + 1) / 2, stride = stride_of(columns) / 4;
    int count = forward_parts(rows, columns), row_blocks = (rows + 15) / 16;
    int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
    for (int task = threadIdx.x / 32; task < count * row_blocks; task += blockDim.x / 32) {
        int part = task / row_blocks, row = (task - part * row_blocks) * 16 + g;
        const u32* upper = (const u32*)tile + (row < rows ? row : 0) * stride + q;
        const u32* lower = (const u32*)tile + (row + 8 < rows ? row + 8 : 0) * stride + q;
        const u32* cut = (const u32*)digits + lane;
        int sums[4] = {0, 0, 0, 0};
        int first = (int)((i64)part * pairs / count), last = (int)((i64)(part + 1) * pairs / count);
        int whole = last < groups / 2 ? last : groups / 2;
#pragma unroll 4
        for (int pair = first; pair < whole; ++pair)
            multiply(sums, upper[8 * pair], lower[8 * pair], upper[8 * pair + 4], lower[8 * pair + 4], cut[64 * pair],
                     cut[64 * pair + 32]);
        if (whole < last) multiply(sums, upper[8 * whole], lower[8 * whole], 0, 0, cut[64 * whole], 0);
        Sum a = join_lanes(sums[0], sums[1]), b = join_lanes(sums[2], sums[3]);
        if (q == 0 && row < rows) parts[part * rows + row] = a;
        if (q == 1 && row + 8 < rows) parts[part * rows + row + 8] = b;
    }
}

// Features of the rows `row`, + 1, + 8, + 9; those beyond the tile have no digits, so that any pixels do for them.
template <bool WHOLE>
__device__ __forceinline__ void load_quad(const u32* tile, int stride, int row, int rows, u32 (&feature)[4]) {
    const u32* corner = tile + row * stride;
    if (WHOLE)
        transpose(corner[0], corner[stride], corner[8 * stride], corner[9 * stride], feature);
    else
        transpose(row < rows ? corner[0] : 0, row < rows ? corner[stride] : 0, row + 8 < rows ? corner[8 * stride] : 0,
                  row + 8 < rows ? corner[9 * stride] : 0, feature);
}

// Adds pixels times residual digits to the sums of 32 features (8 words from word 8 * block), over chunks of 32 rows
// first .. last - 1. A lane has digits 2q, 2q + 1 of the features 4 (8 block + g) + 0 .. 3.
__device__ __forceinline__ void backward_chunks(const u32* tile, int stride, int words, int rows, int block, int first,
                                                int last, const uint4* digits, int (&sums)[2][4]) {
    int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
    const u32* column = tile + (8 * block + g < words ? 8 * block + g : 0);
    const u32* cut = (const u32*)digits + lane / 4 + lane % 4 * 8;
    for (int chunk = first; chunk < last; ++chunk) {
        int row = 32 * chunk + 2 * q;
        u32 f[4], h[4];
        if (32 * chunk + 32 <= rows) {
            load_quad<true>(column, stride, row, rows, f);
            load_quad<true>(column, stride, row + 16, rows, h);
        } else {
            load_quad<false>(column, stride, row, rows, f);
            load_quad<false>(column, stride, row + 16, rows, h);
        }
        u32 b0 = cut[64 * chunk], b1 = cut[64 * chunk + 32];
        multiply(sums[0], f[0], f[1], h[0], h[1], b0, b1);
        multiply(sums[1], f[2], f[3], h[2], h[3], b0, b1);
    }
}

// A lane's own of the 32 features' sums: neighbours have neighbours.
__device__ __forceinline__ Sum own_of(const int (&sums)[2][4]) {
    Sum a = join_lanes(sums[0][0], sums[0][1]), b = join_lanes(sums[0][2], sums[0][3]);
    Sum c = join_lanes(sums[1][0], sums[1][1]), d = join_lanes(sums[1][2], sums[1][3]);
    int q = threadIdx.x & 3;
    return q == 0 ? a : q == 1 ? b : q == 2 ? c : d;
}

// Adds to target[column], column < count, the sums over the tile's rows of pixels times residual digits.
__device__ void backward_tile(const uint4* tile, int rows, int columns, const uint4* digits, Sum* parts, Sum* target,
                              i64 count) {
    int words = columns / 4, stride = stride_of(columns) / 4, warps = blockDim.x / 32;
    int blocks = (words + 7) / 8, chunks = (rows + 31) / 32;
    int divided = (int)larger(1, smaller(warps / blocks, chunks));
    for (int task = threadIdx.x / 32; task < divided * blocks; task += warps) {
        int part = task / blocks, block = task - part * blocks, column = 32 * block + (threadIdx.x & 31);
        int sums[2][4] = {};
        backward_chunks((const u32*)tile, stride, words, rows, block, (int)((i64)part * chunks / divided),
                        (int)((i64)(part + 1) * chunks / divided), digits, sums);
        Sum own = own_of(sums);
        if (divided > 1) {
            if (column < columns) parts[part * columns + column] = own;
        } else if (column < columns && column < count) {
            add(target + column, own);
        }
    }
    if (divided == 1) return;
    __syncthreads();
    for (int j = threadIdx.x; j < columns && j < count; j += blockDim.x)
        add(target + j, sum_of_parts(parts, j, columns, divided));
}

// A warp's share of the backward sums, which stays in its registers: up to SHARES times 32 features, a part of the rows.
struct Share {
    int sums[SHARES][2][4];
    int rows, words, stride, blocks, block, step, first, last;

    METHOD Share(int tile_rows, int tile_columns) {
        rows = tile_rows, words = tile_columns / 4, stride = stride_of(tile_columns) / 4, blocks = (words + 7) / 8;
        int chunks = (rows + 31) / 32, warps = blockDim.x / 32, warp = threadIdx.x / 32;
        int divided = (int)larger(1, smaller(warps / blocks, chunks)), part = divided > 1 ? warp / blocks : 0;
        // Several parts: a warp has one block at most.
        block = part < divided ? warp - part * blocks : blocks;
        step = divided > 1 ? blocks : warps;
        first = part * chunks / divided, last = (part + 1) * chunks / divided;
    }

    METHOD void clear() {
#pragma unroll
        for (int i = 0; i < 8 * SHARES; ++i) sums[i / 8][i / 4 % 2][i % 4] = 0;
    }

    METHOD void add_tile(const u32* tile, const uint4* digits) {
#pragma unroll
        for (int n = 0; n < SHARES; ++n)
            if (block + n * step < blocks)
                backward_chunks(tile, stride, words, rows, block + n * step, first, last, digits, sums[n]);
    }

    METHOD void give(Sum* target, i64 count) {
#pragma unroll
        for (int n = 0; n < SHARES; ++n) {
            if (block + n * step >= blocks) continue;
            Sum own = own_of(sums[n]);
            int column = 32 * (block + n * step) + (threadIdx.x & 31);
            if (column < count) add(target + column, own);
        }
    }
};

#else
// ---- products by dp4a: a thread works on a row forward, on four columns backward

#define TILE_PARTS 4
#define ONE_READ_PARTS(threads) (threads)

__device__ __forceinline__ int padded(int rows) { return rows; }

// (quads of rows, 8, 4)
__device__ __forceinline__ void store_residual(u8* digits, int row, u64 cut) {
    u8* target = digits + row / 4 * 32 + row % 4;
#pragma unroll
    for (int k = 0; k < DIGITS; ++k) target[4 * k] = (u8)(cut >> (8 * k));
}

// Into how many parts the columns of each row are divided, one thread each.
__device__ __forceinline__ int forward_parts(int rows, int columns) {
    return (int)larger(1, smaller(blockDim.x / rows, columns / 16));
}

// parts[part * rows + row] = the sum over a part of the columns of pixels times the weights' digits.
__device__ void forward_tile(const uint4* tile, int rows, int columns, const uint4* digits, Sum* parts) {
    int groups = columns / 16, stride = stride_of(columns) / 16, count = forward_parts(rows, columns);
    for (int task = threadIdx.x; task < count * rows; task += blockDim.x) {
        int part = task / rows, row = task - part * rows;
        int sums[DIGITS] = {};
        int last = (int)((i64)(part + 1) * groups / count);
        for (int group = (int)((i64)part * groups / count); group < last; ++group) {
            uint4 pixels = tile[row * stride + group];
#pragma unroll
            for (int k = 0; k < DIGITS; ++k) {
                uint4 digit = digits[group * DIGITS + k];
                sums[k] = dp4a(pixels.x, digit.x, sums[k]);
                sums[k] = dp4a(pixels.y, digit.y, sums[k]);
                sums[k] = dp4a(pixels.z, digit.z, sums[k]);
                sums[k] = dp4a(pixels.w, digit.w, sums[k]);
            }
        }
        parts[task] = join(sums);
    }
}

// Adds pixels times residual digits of four features (a word of columns) to sums, over quads of rows first .. last - 1.
__device__ __forceinline__ void backward_quads(const u32* tile, int stride, int word, int first, int last,
                                               const uint4* digits, int (&sums)[4][RESIDUAL_DIGITS]) {
#pragma unroll 1  // there are no registers for two
    for (int quad = first; quad < last; ++quad) {
        const u32* corner = tile + quad * 4 * stride + word;
        u32 feature[4];
        transpose(corner[0], corner[stride], corner[2 * stride], corner[3 * stride], feature);
        uint4 lower = digits[2 * quad], upper = digits[2 * quad + 1];
#pragma unroll
        for (int f = 0; f < 4; ++f) {
            sums[f][0] = dp4a(feature[f], lower.x, sums[f][0]);
            sums[f][1] = dp4a(feature[f], lower.y, sums[f][1]);
            sums[f][2] = dp4a(feature[f], lower.z, sums[f][2]);
            sums[f][3] = dp4a(feature[f], lower.w, sums[f][3]);
            sums[f][4] = dp4a(feature[f], upper.x, sums[f][4]);
            sums[f][5] = dp4a(feature[f], upper.y, sums[f][5]);
            sums[f][6] = dp4a(feature[f], upper.z, sums[f][6]);
        }
    }
}

// Adds to target[column], column < count, the sums over the tile's rows of pixels times residual digits.
__device__ void backward_tile(const uint4* tile, int rows, int columns, const uint4* digits, Sum* parts, Sum* target,
                              i64 count) {
    int words = columns / 4, quads = rows / 4, stride = stride_of(columns) / 4;
    int divided = (int)larger(1, smaller(blockDim.x / words, quads));
    for (int task = threadIdx.x; task < divided * words; task += blockDim.x) {
        int part = task / words, word = task - part * words;
        int sums[4][RESIDUAL_DIGITS] = {};
        backward_quads((const u32*)tile, stride, word, (int)((i64)part * quads / divided),
                       (int)((i64)(part + 1) * quads / divided), digits, sums);
#pragma unroll
        for (int f = 0; f < 4; ++f) {
            if (divided > 1)
                parts[part * columns + 4 * word + f] = join(sums[f]);
            else if (4 * word + f < count)
                add(target + 4 * word + f, join(sums[f]));
        }
    }
    if (divided == 1) return;
    __syncthreads();
    for (int j = threadIdx.x; j < columns && j < count; j += blockDim.x)
        add(target + j, sum_of_parts(parts, j, columns, divided));
}

// A thread's share of the backward sums, which stays in its registers: four features, a part of each tile's rows.
struct Share {
    int sums[4][RESIDUAL_DIGITS];
    int stride, word, first, last;
    bool idle;

    METHOD Share(int rows, int columns) {
        int words = columns / 4, quads = rows / 4, divided = (int)larger(1, smaller(blockDim.x / words, quads));
        int part = threadIdx.x / words;
        stride = stride_of(columns) / 4, word = threadIdx.x - part * words, idle = part >= divided;
        first = idle ? 0 : part * quads / divided, last = idle ? 0 : (part + 1) * quads / divided;
    }

    METHOD void clear() {
#pragma unroll
        for (int i = 0; i < 4 * RESIDUAL_DIGITS; ++i) sums[i / RESIDUAL_DIGITS][i % RESIDUAL_DIGITS] = 0;
    }

    METHOD void add_tile(const u32* tile, const uint4* digits) {
        backward_quads(tile, stride, word, first, last, digits, sums);
    }

    METHOD void give(Sum* target, i64 count) {
        if (idle) return;
#pragma unroll
        for (int f = 0; f < 4; ++f)
            if (4 * word + f < count) add(target + 4 * word + f, join(sums[f]));
    }
};
#endif

// ---- weights and bias

__device__ __forceinline__ double gradient_of(const Sum* sum, i64 m, int exponent) {
    Sum total = read(sum);
    return (total_of(total.low, total.high) * power_of_two(exponent - PRODUCT_BITS)) / (PIXEL_SCALE * (double)m);
}

// Costs, gradient and bias of the iteration before `iteration`, whose last turn was the one before `turn`; every block for
// itself, the first for the host.
__device__ void update_bias(const Job& job, const LossGrid& grid, int iteration, int turn, const int* residual_exponents,
                            double* bias) {
    for (int model = threadIdx.x; model < job.models; model += blockDim.x) {
        const u64* totals = job.totals + ((i64)((turn + 1) & 1) * job.models + model) * TOTALS;
        int exponent = residual_exponents[model];
        i64 total[TOTALS];
        for (int i = 0; i < TOTALS; ++i) total[i] = (i64)__ldcg(totals + i);
        double db = (total_of(total[0], total[1]) * power_of_two(exponent - PRODUCT_BITS)) / (double)job.m;
        bias[model] = bias[model] - job.rates[model] * db;
        if (blockIdx.x == 0) {
            double cost = (double)total[2] * power_of_two(grid.exponents[0]);
            cost = cost + (double)total[3] * power_of_two(grid.exponents[1]);
            cost = cost + (double)total[4] * power_of_two(grid.exponents[2]);
            cost = (cost * power_of_two(exponent)) / (double)job.m;
            job.costs[(i64)(iteration - 1) * job.models + model] =
                exponent > LARGEST_EXPONENT ? not_a_number() : cost;
            if (iteration == job.iterations) {
                job.db[model] = db;
                job.b[model] = bias[model];
            }
        }
    }
}

// Weights of all features, by all blocks together, and the largest of them. All threads come here.
__device__ void update_weights(const Job& job, int iteration, int turn, const int* residual_exponents) {
    for (int model = 0; model < job.models; ++model) {
        u32 largest = 0;
        const Sum* sums = job.w_sums + ((i64)((turn + 1) & 1) * job.models + model) * job.d;
        for (i64 j = (i64)blockIdx.x * blockDim.x + threadIdx.x; j < job.d; j += (i64)gridDim.x * blockDim.x) {
            double* w = job.w + model * job.d + j;
            double weight = *w;
            if (iteration > 0) {
                double gradient = gradient_of(sums + j, job.m, residual_exponents[model]);
                weight = weight - job.rates[model] * gradient;
                *w = weight;
                if (iteration == job.iterations) job.dw[model * job.d + j] = gradient;
            }
            largest = max(largest, size_of(weight));
        }
        raise_largest(job.largest + (iteration & 1) * job.models + model, largest);
    }
}

// The exponents of the weights (or residuals) from the largest of all blocks, of which there are two buffers in turn; true
// where one of them changed. All threads come here.
__device__ bool find_exponents(const Job& job, const u32* largest, int turn, int* exponents) {
    int changed = 0;
    for (int model = threadIdx.x; model < job.models; model += blockDim.x) {
        int exponent = exponent_of(__ldcg(largest + (turn & 1) * job.models + model));
        changed |= exponent != exponents[model];
        exponents[model] = exponent;
    }
    return __syncthreads_or(changed) != 0;
}

__device__ Job job_of(const u8* pixels, const double* sign, double* w, double* b, const double* rates, double* costs,
                      double* dw, double* db, int* exponents, u64* digits, u64* workspace, i64 m, i64 d, i64 pitch,
                      int models, int iterations, int tile_rows, int tile_columns) {
    Job job = {pixels, sign, w, b, rates, costs, dw, db, exponents, digits, m, d, pitch, models, iterations, tile_rows,
               tile_columns};
    job.counter = (u32*)workspace;
    job.w_sums = (Sum*)(workspace + COUNTER_WORDS);
    job.totals = (u64*)(job.w_sums + 2 * models * d);
    job.largest = (u32*)(job.totals + 2 * models * TOTALS);
    job.largest_residual = job.largest + 2 * models;
    job.z_sums = (Sum*)(job.largest + 4 * models);
    return job;
}

#define ARGUMENTS                                                                                                      \
    const u8 *pixels, const double *sign, double *w, double *b, const double *rates, double *costs, double *dw,        \
        double *db, int *known_exponents, u64 *digits, u64 *workspace, i64 m, i64 d, i64 pitch, int models,            \
        int iterations, int tile_rows, int tile_columns, int resident
#define JOB                                                                                                            \
    job_of(pixels, sign, w, b, rates, costs, dw, db, known_exponents, digits, workspace, m, d, pitch, models,          \
           iterations, tile_rows, tile_columns)

// ---- the kernels

// Shared memory: a tile, or two if they are not resident, weights' digits, residuals' digits, parts (TILE_PARTS a thread,
// or 1 a row), bias, if resident the weights of the tile's columns, and exponents of weights and residuals.
extern "C" __global__ void __launch_bounds__(TILES_THREADS, 1) descend_in_tiles(ARGUMENTS) {
    const Job job = JOB;
    const LossGrid grid = loss_grid(m);
    const i64 row_slabs = divide_up(m, tile_rows), tiles = row_slabs * divide_up(d, tile_columns);
    if (resident && gridDim.x != tiles) return;  // somebody cut the grid: no costs rather than wrong ones
    const int padded_rows = padded(tile_rows), part_count = (int)larger(TILE_PARTS * blockDim.x, tile_rows);
    Tiles way(job, shared_memory);
    uint4* weight_digits = shared_memory + (resident ? 1 : 2) * tile_rows * (stride_of(tile_columns) / 16);
    uint4* residual_digits = weight_digits + tile_columns / 16 * DIGITS;
    Sum* parts = (Sum*)(residual_digits + padded_rows / 2);
    double* bias = (double*)(parts + part_count);
    double* weights = bias + models;  // (models, tile_columns)
    int* exponents = (int*)(weights + (resident ? models * tile_columns : 0));
    int* residual_exponents = exponents + models;

    u32 target = 0;
    for (int model = threadIdx.x; model < models; model += blockDim.x) {
        bias[model] = b[model];
        exponents[model] = known_exponents[2 * model];
        residual_exponents[model] = known_exponents[2 * model + 1];
    }
    // A resident block keeps its tile, and the weights of its columns, which every block of these columns updates.
    const i64 own_row = (i64)blockIdx.x % row_slabs * tile_rows, own_column = (i64)blockIdx.x / row_slabs * tile_columns;
    if (resident) {
        way.get(blockIdx.x);
        for (int i = threadIdx.x; i < models * tile_columns; i += blockDim.x) {
            int model = i / tile_columns, column = i - model * tile_columns;
            weights[i] = own_column + column < d ? w[model * d + own_column + column] : 0.0;
        }
    }
    __syncthreads();

    int attempt = 0;  // at forward passes: they have three buffers in turn
    int turn = 0;     // of backward passes: they have two
    for (int iteration = 0;; ++iteration) {
        // Update: what the iteration before has left to do.
        if (iteration > 0) update_bias(job, grid, iteration, turn, residual_exponents, bias);
        if (resident) {
            for (int model = 0; model < models; ++model) {
                u32 largest = 0;
                const Sum* sums = job.w_sums + ((i64)((turn + 1) & 1) * models + model) * d + own_column;
                for (int j = threadIdx.x; j < tile_columns && own_column + j < d; j += blockDim.x) {
                    double weight = weights[model * tile_columns + j];
                    if (iteration > 0) {
                        double gradient = gradient_of(sums + j, m, residual_exponents[model]);
                        weight = weight - rates[model] * gradient;
                        weights[model * tile_columns + j] = weight;
                        if (iteration == iterations && own_row == 0) {
                            dw[model * d + own_column + j] = gradient;
                            w[model * d + own_column + j] = weight;
                        }
                    }
                    largest = max(largest, size_of(weight));
                }
                if (own_row == 0) raise_largest(job.largest + (iteration & 1) * models + model, largest);
            }
        } else {
            update_weights(job, iteration, turn, residual_exponents);
        }
        if (iteration == iterations) break;
        if (!resident) {
            grid_barrier(job.counter, target);
            find_exponents(job, job.largest, iteration, exponents);
        }
        __syncthreads();

        // Forward. Resident blocks take the exponents as they were, learn the right ones at the barrier that they have to
        // wait at anyway, and repeat the pass in the rare iterations in which one has changed.
        bool again;
        do {
            clear(job.z_sums + (i64)((attempt + 1) % 3) * models * m, models * m);
            for (i64 t = blockIdx.x; t < tiles; t += gridDim.x) {
                i64 first_row = way.row(t), first_column = way.column(t);
                const uint4* tile = way.get(t);
                if (t + gridDim.x < tiles) way.expect(t + gridDim.x);
                for (int model = 0; model < models; ++model) {
                    double up = power_of_two(weight_bits(d) - exponents[model]);
                    if (resident)
                        cut_weights<false>(weights + model * tile_columns, tile_columns, tile_columns, up, weight_digits);
                    else
                        cut_weights<true>(w + model * d + first_column, d - first_column, tile_columns, up, weight_digits);
                    __syncthreads();
                    forward_tile(tile, tile_rows, tile_columns, weight_digits, parts);
                    __syncthreads();
                    Sum* z = job.z_sums + ((i64)(attempt % 3) * models + model) * m + first_row;
                    for (int row = threadIdx.x; row < tile_rows && first_row + row < m; row += blockDim.x)
                        add(z + row, sum_of_parts(parts, row, tile_rows, forward_parts(tile_rows, tile_columns)));
                    __syncthreads();
                }
            }
            grid_barrier(job.counter, target);
            again = resident && find_exponents(job, job.largest, iteration, exponents);
            ++attempt;
        } while (again);
        const Sum* z_sums = job.z_sums + (i64)((attempt - 1) % 3) * models * m;

        // Residuals and backward, with the residuals' exponents as they were; in the rare iterations in which one has
        // changed, which is known at the end, once more.
        for (;;) {
            u64* totals = job.totals + (i64)(turn & 1) * models * TOTALS;
            u32* sizes = job.largest_residual + (turn & 1) * models;
            // Sigmoid, loss and residuals of samples that are divided over all blocks, if tiles are not resident.
            if (!resident) {
                for (int model = 0; model < models; ++model) {
                    i64 sum[TOTALS] = {};
                    u32 largest = 0;
                    double scale = scale_of(exponents[model], d);
                    for (i64 i = (i64)blockIdx.x * blockDim.x + threadIdx.x; i < m; i += (i64)gridDim.x * blockDim.x) {
                        job.digits[model * m + i] =
                            residual_of<true>(read(z_sums + model * m + i), scale, bias[model], sign[model * m + i],
                                              residual_exponents[model], grid, sum, largest);
                    }
                    add_totals(totals + model * TOTALS, sum);
                    raise_largest(sizes + model, largest);
                }
                grid_barrier(job.counter, target);
            }

            // Backward, from the last tile to the first: the last two are still here, others may be in the cache.
            clear_sums(job, turn, iteration);
            Sum* w_sums = job.w_sums + (i64)(turn & 1) * models * d;
            const i64 final_tile = blockIdx.x + (tiles - 1 - blockIdx.x) / gridDim.x * gridDim.x;
            for (i64 t = final_tile; t >= 0; t -= gridDim.x) {
                i64 first_row = way.row(t), first_column = way.column(t);
                const uint4* tile = way.get(t);
                if (t >= gridDim.x) way.expect(t - gridDim.x);
                for (int model = 0; model < models; ++model) {
                    if (resident) {
                        // Every block of these samples has the same residuals; those of the first columns tell the loss.
                        i64 sum[TOTALS] = {};
                        u32 largest = 0;
                        double scale = scale_of(exponents[model], d);
                        int exponent = residual_exponents[model];
                        for (int row = threadIdx.x; row < padded_rows; row += blockDim.x) {
                            i64 i = first_row + row;
                            u64 cut = 0;
                            if (row < tile_rows && i < m) {
                                Sum z = read(z_sums + model * m + i);
                                double own_sign = sign[model * m + i];
                                cut = own_column == 0 ? residual_of<true>(z, scale, bias[model], own_sign, exponent, grid,
                                                                          sum, largest)
                                                      : residual_of<false>(z, scale, bias[model], own_sign, exponent,
                                                                           grid, sum, largest);
                            }
                            store_residual((u8*)residual_digits, row, cut);
                        }
                        if (own_column == 0) {
                            add_totals(totals + model * TOTALS, sum);
                            raise_largest(sizes + model, largest);
                        }
                    } else {
                        for (int row = threadIdx.x; row < padded_rows; row += blockDim.x) {
                            i64 i = first_row + row;
                            u64 cut = row < tile_rows && i < m ? __ldcg(job.digits + model * m + i) : 0;
                            store_residual((u8*)residual_digits, row, cut);
                        }
                    }
                    __syncthreads();
                    backward_tile(tile, tile_rows, tile_columns, residual_digits, parts,
                                  w_sums + model * d + first_column, d - first_column);
                    __syncthreads();
                }
            }
            grid_barrier(job.counter, target);
            bool changed = find_exponents(job, job.largest_residual, turn, residual_exponents);
            ++turn;
            if (!changed) break;
            grid_barrier(job.counter, target);  // until all have looked: the next turn clears what they look at
        }
    }
    if (blockIdx.x == 0)
        for (int model = threadIdx.x; model < models; model += blockDim.x) {
            known_exponents[2 * model] = exponents[model];
            known_exponents[2 * model + 1] = residual_exponents[model];
        }
}

// What an iteration cannot be quicker than: so many grid barriers and nothing else, for benchmarks.
extern "C" __global__ void __launch_bounds__(TILES_THREADS, 1) only_barriers(u32* counter, int count) {
    u32 target = 0;
    for (int i = 0; i < count; ++i) grid_barrier(counter, target);
}

// One model; tile_columns is d rounded up to 16, at most what `Share` holds; tile_rows a multiple of 4.
// Shared memory: two tiles, weights' digits, residuals' digits, parts (ONE_READ_PARTS, or 1 a row), bias, both exponents.
extern "C" __global__ void __launch_bounds__(ONE_READ_THREADS, 1) descend_in_one_read(ARGUMENTS) {
    const Job job = JOB;
    const LossGrid grid = loss_grid(m);
    const i64 tiles = divide_up(m, tile_rows);
    const int stride = stride_of(tile_columns), tile_groups = tile_rows * (stride / 16);
    const int padded_rows = padded(tile_rows), part_count = (int)larger(ONE_READ_PARTS(blockDim.x), tile_rows);
    uint4* tile = shared_memory;
    uint4* weight_digits = tile + 2 * tile_groups;
    uint4* residual_digits = weight_digits + tile_columns / 16 * DIGITS;
    Sum* parts = (Sum*)(residual_digits + padded_rows / 2);
    double* bias = (double*)(parts + part_count);
    int *exponent = (int*)(bias + 1), *residual_exponent = exponent + 1;
    Share share(tile_rows, tile_columns);

    u32 target = 0;
    if (threadIdx.x == 0) {
        *bias = b[0];
        *exponent = known_exponents[0];
        *residual_exponent = known_exponents[1];
    }
    __syncthreads();
    int iteration = 0;
    bool again = false;  // the same iteration, whose largest residual has passed a power of two
    for (int turn = 0;; ++turn) {
        if (!again) {
            if (iteration > 0) update_bias(job, grid, iteration, turn, residual_exponent, bias);
            update_weights(job, iteration, turn, residual_exponent);
            if (iteration == iterations) break;
        }
        int buffer = 0;
        if (blockIdx.x < tiles) load_tile(job, tile, (i64)blockIdx.x * tile_rows, tile_rows, 0, tile_columns);
        grid_barrier(job.counter, target);
        find_exponents(job, job.largest, iteration, exponent);
        cut_weights<true>(w, d, tile_columns, power_of_two(weight_bits(d) - *exponent), weight_digits);
        clear_sums(job, turn, iteration);
        const double scale = scale_of(*exponent, d);
        Sum* w_sums = job.w_sums + (i64)(turn & 1) * d;
        i64 sum[TOTALS] = {};
        u32 largest = 0;
        share.clear();
        int terms = 0;
        for (i64 t = blockIdx.x; t < tiles; t += gridDim.x) {
            copies_arrived();
            __syncthreads();
            const uint4* pixels_here = tile + buffer * tile_groups;
            buffer ^= 1;
            if (t + gridDim.x < tiles)
                load_tile(job, tile + buffer * tile_groups, (t + gridDim.x) * tile_rows, tile_rows, 0, tile_columns);
            forward_tile(pixels_here, tile_rows, tile_columns, weight_digits, parts);
            __syncthreads();
            for (int row = threadIdx.x; row < padded_rows; row += blockDim.x) {
                i64 i = t * tile_rows + row;
                u64 cut = 0;
                if (row < tile_rows && i < m) {
                    Sum z = sum_of_parts(parts, row, tile_rows, forward_parts(tile_rows, tile_columns));
                    cut = residual_of<true>(z, scale, *bias, sign[i], *residual_exponent, grid, sum, largest);
                }
                store_residual((u8*)residual_digits, row, cut);
            }
            __syncthreads();
            share.add_tile((const u32*)pixels_here, residual_digits);
            terms += tile_rows;
            if (terms + tile_rows > MOST_TERMS || t + gridDim.x >= tiles) {
                share.give(w_sums, d);
                share.clear();
                terms = 0;
            }
        }
        add_totals(job.totals + (i64)(turn & 1) * TOTALS, sum);
        raise_largest(job.largest_residual + (turn & 1), largest);
        grid_barrier(job.counter, target);
        again = find_exponents(job, job.largest_residual, turn, residual_exponent);
        if (!again) ++iteration;
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        known_exponents[0] = *exponent;
        known_exponents[1] = *residual_exponent;
    }
}
