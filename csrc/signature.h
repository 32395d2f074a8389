// A kernel's signature: one letter for each argument, p (pointer), i (int), f (float), d (double).
#pragma once

#include <string>
#include <type_traits>

template <class T>
constexpr char letter_of() {
    if constexpr (std::is_pointer_v<T>) return 'p';
    else if constexpr (std::is_same_v<T, int>) return 'i';
    else if constexpr (std::is_same_v<T, float>) return 'f';
    else if constexpr (std::is_same_v<T, double>) return 'd';
    else static_assert(!sizeof(T), "a kernel takes pointers, int, float and double");
}

template <class... Arguments>
std::string signature_of(void (*)(Arguments...)) {
    return std::string{letter_of<Arguments>()...};
}
