# SPDX-License-Identifier: Apache-2.0
# llhttp 9.x: the system's where it has it, else the pinned source package fetched at set-up.
find_path(LLHTTP_INCLUDE llhttp.h)
