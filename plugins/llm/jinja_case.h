// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * jinja_case - upper and lower case of whole strings, and what kind of characters they hold, as
 * Python's str methods see it: with the special casings of Unicode ("ß" is "SS").
 */
#include "llm/jinja_value.h"

enum jcase { JCASE_UPPER, JCASE_LOWER, JCASE_TITLE, JCASE_FOLD, JCASE_SWAP, JCASE_CAPITALIZE };

struct jv jcase_map(struct jinja *j, const struct jstr *s, enum jcase how);
// jinja's own `title` filter: words begin after white space and - ( { [ <
struct jv jcase_title_filter(struct jinja *j, const struct jstr *s);

bool jcase_is_upper(const struct jstr *s); // str.isupper and so on
bool jcase_is_lower(const struct jstr *s);
bool jcase_is_title(const struct jstr *s);
bool jcase_is_identifier(const struct jstr *s);
bool jcase_alpha(uint32_t c);
bool jcase_decimal(uint32_t c);
bool jcase_digit(uint32_t c);
bool jcase_numeric(uint32_t c);
bool jcase_alnum(uint32_t c);
