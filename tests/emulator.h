// CUDA on the processor, for tests: the kernels' own source, compiled as C++ after this text, is executed thread by thread.
//
// Every CUDA thread is a coroutine. They take turns where they wait for each other (barriers, shuffles, spinning), in an
// order and at a pace that change with the seed, so that a missing barrier shows itself as another result. Shared memory starts with
// garbage and ends with a guard.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

#define XLOGREG_EMULATED
#define __device__ static
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define METHOD inline
#define __launch_bounds__(...)

struct Index { unsigned x; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static Index threadIdx, blockIdx, blockDim, gridDim;
static uint4* shared_memory;

namespace emulator {
struct Block {
    std::vector<unsigned char> shared;
    unsigned arrived = 0, generation = 0;
    int any[2] = {0, 0};
};
struct Warp {
    unsigned arrived = 0, generation = 0;
    unsigned long long values[32];
    unsigned fragments[32][6];
};
struct Thread {
    jmp_buf state;
    ucontext_t context;
    std::vector<char> stack;
    unsigned thread, block;
    std::vector<std::pair<uint4*, const uint4*>> copies;
    bool started = false, finished = false;
    // Until this number is another one, it is not its turn: a look at it takes less time than to go there and back.
    const unsigned* awaited = nullptr;
    unsigned before = 0;
};
static std::vector<Block> blocks;
static std::vector<Warp> warps;
static std::vector<Thread> threads;
static Thread* current;
static jmp_buf scheduler;
static ucontext_t scheduler_context;
static void (*body)();
static unsigned long long random_state;

static unsigned random_below(unsigned n) {
    random_state = random_state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)((random_state >> 33) % n);
}
static void yield() {
    if (_setjmp(current->state) == 0) _longjmp(scheduler, 1);
}
static void main_of_thread() {
    body();
    current->finished = true;
    _longjmp(scheduler, 1);
}
static void wait(unsigned& arrived, unsigned& generation, unsigned count) {
    if (++arrived == count) {
        arrived = 0;
        ++generation;
    } else {
        current->awaited = &generation;
        current->before = generation;
        yield();
    }
}
static Block& block() { return blocks[blockIdx.x]; }
static Warp& warp() { return warps[blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32]; }

// Runs all threads to their ends; 0, or 1 where a thread wrote beyond its block's shared memory.
static int run(unsigned grid, unsigned size, unsigned shared, unsigned long long seed) {
    const size_t stack = 64 * 1024, guard = 64;
    random_state = seed * 2862933555777941757ULL + 3037000493ULL;
    gridDim.x = grid;
    blockDim.x = size;
    blocks.assign(grid, Block());
    warps.assign(grid * (size / 32), Warp());
    for (Block& block : blocks) block.shared.assign(shared + guard + 16, 0xcd);
    threads = std::vector<Thread>(grid * size);
    std::vector<unsigned> order(grid * size);
    for (unsigned i = 0; i < grid * size; ++i) {
        threads[i].stack.resize(stack);
        threads[i].thread = i % size;
        threads[i].block = i / size;
        order[i] = i;
    }
    // For some rounds one block or one warp does not move, or one block alone does: nobody may rely on keeping pace.
    unsigned mode = 0, chosen = 0, rounds = 0;
    while (!order.empty()) {
        if (rounds-- == 0) {
            mode = random_below(4);
            chosen = random_below(mode == 3 ? grid * (size / 32) : grid);
            rounds = 1 + random_below(30);
        }
        // Neighbours mostly stay together; from which end they start, and from where, is chance.
        unsigned start = random_below((unsigned)order.size());
        std::rotate(order.begin(), order.begin() + start, order.end());
        if (random_below(2)) std::reverse(order.begin(), order.end());
        for (unsigned i : order) {
            if (mode == 1 && i / size == chosen) continue;
            if (mode == 2 && i / size != chosen) continue;
            if (mode == 3 && i / 32 == chosen) continue;
            current = &threads[i];
            if (current->awaited && *current->awaited == current->before) continue;
            current->awaited = nullptr;
            threadIdx.x = current->thread;
            blockIdx.x = current->block;
            shared_memory = (uint4*)(((uintptr_t)blocks[blockIdx.x].shared.data() + 15) / 16 * 16);
            if (_setjmp(scheduler) != 0) continue;
            if (current->started) _longjmp(current->state, 1);
            current->started = true;
            getcontext(&current->context);
            current->context.uc_stack.ss_sp = current->stack.data();
            current->context.uc_stack.ss_size = stack;
            current->context.uc_link = nullptr;
            makecontext(&current->context, main_of_thread, 0);
            setcontext(&current->context);
        }
        order.erase(std::remove_if(order.begin(), order.end(), [](unsigned i) { return threads[i].finished; }),
                    order.end());
    }
    for (Block& block : blocks) {
        uintptr_t begin = ((uintptr_t)block.shared.data() + 15) / 16 * 16 + shared;
        for (size_t i = 0; i < guard; ++i)
            if (((unsigned char*)begin)[i] != 0xcd) return 1;
    }
    return 0;
}
}  // namespace emulator

static void __syncthreads() { emulator::wait(emulator::block().arrived, emulator::block().generation, blockDim.x); }
static int __syncthreads_or(int value) {
    emulator::Block& block = emulator::block();
    int turn = block.generation & 1;
    block.any[turn] |= value;
    __syncthreads();
    int result = block.any[turn];
    __syncthreads();
    block.any[turn] = 0;
    __syncthreads();
    return result;
}
template <typename T>
static T __shfl_xor_sync(unsigned, T value, int lanes) {
    emulator::Warp& warp = emulator::warp();
    warp.values[threadIdx.x % 32] = (unsigned long long)value;
    emulator::wait(warp.arrived, warp.generation, 32);
    T result = (T)warp.values[(threadIdx.x % 32) ^ lanes];
    emulator::wait(warp.arrived, warp.generation, 32);
    return result;
}
template <typename T>
static T atomicAdd(T* target, T value) {
    T before = *target;
    *target = before + value;
    return before;
}
template <typename T>
static T atomicMax(T* target, T value) {
    T before = *target;
    *target = std::max(before, value);
    return before;
}
template <typename T>
static T __ldcg(const T* address) { return *address; }
static uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static double __longlong_as_double(long long bits) { double v; memcpy(&v, &bits, 8); return v; }
static long long __double_as_longlong(double v) { long long bits; memcpy(&bits, &v, 8); return bits; }
static long long __double2ll_rn(double v) { return std::isfinite(v) && std::fabs(v) < 9e18 ? std::llrint(v) : INT64_MIN; }
static unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned result = 0;
    for (int i = 0; i < 4; ++i) result |= (unsigned)(both >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
    return result;
}
static int dp4a(unsigned pixels, unsigned digits, int sum) {
    long long total = sum;
    for (int i = 0; i < 4; ++i) total += (int)(pixels >> (8 * i) & 255) * (int)(signed char)(digits >> (8 * i) & 255);
    if (total != (int)total) abort();  // 32 bits overflowed
    return (int)total;
}
// As PTX has it for m16n8k32: each lane brings its part of 16 x 32 pixels and 32 x 8 digits, and takes its part of 16 x 8.
static void multiply(int (&sums)[4], unsigned a0, unsigned a1, unsigned a2, unsigned a3, unsigned b0, unsigned b1) {
    emulator::Warp& warp = emulator::warp();
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    unsigned mine[6] = {a0, a1, a2, a3, b0, b1};
    memcpy(warp.fragments[lane], mine, sizeof(mine));
    emulator::wait(warp.arrived, warp.generation, 32);
    unsigned words[2][2][8];  // of two rows of pixels and of two digits, 32 bytes each
    for (int i = 0; i < 2; ++i)
        for (int k = 0; k < 8; ++k) {
            words[0][i][k] = warp.fragments[g * 4 + k % 4][i + 2 * (k / 4)];
            words[1][i][k] = warp.fragments[(2 * q + i) * 4 + k % 4][4 + k / 4];
        }
    for (int i = 0; i < 4; ++i) {
        const unsigned char* pixels = (const unsigned char*)words[0][i / 2];
        const signed char* digits = (const signed char*)words[1][i % 2];
        int products = 0;
        for (int k = 0; k < 32; ++k) products += pixels[k] * digits[k];
        long long total = (long long)sums[i] + products;
        if (total != (int)total) abort();  // 32 bits overflowed
        sums[i] = (int)total;
    }
    emulator::wait(warp.arrived, warp.generation, 32);
}
static unsigned __reduce_max_sync(unsigned, unsigned value) {
    emulator::Warp& warp = emulator::warp();
    warp.values[threadIdx.x % 32] = value;
    emulator::wait(warp.arrived, warp.generation, 32);
    unsigned result = (unsigned)*std::max_element(warp.values, warp.values + 32);
    emulator::wait(warp.arrived, warp.generation, 32);
    return result;
}
static unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
static void arrive(unsigned* counter) { ++*counter; }
static unsigned load_acquire(const unsigned* address) { return *(volatile const unsigned*)address; }
static void spinning() { emulator::yield(); }
// Copies that nobody waits for are as late as can be: each thread's land when it waits for them. Until then there is
// garbage at their places.
static void copy_16_bytes(uint4* target, const uint4* source) {
    std::memset(target, 0xcd, sizeof *target);
    emulator::current->copies.push_back({target, source});
}
static void copies_arrived() {
    for (auto& [target, source] : emulator::current->copies) *target = *source;
    emulator::current->copies.clear();
}
