// SPDX-License-Identifier: Apache-2.0
#pragma once
/*
 * api_details - the state in the shape of Ray Serve's ServeInstanceDetails, for its clients.
 *
 * It is status.h's state with Ray's keys around and between: what Ray has and we do not is null,
 * what we have beside it stays. Processes are named by their specs (proxies: "ingress/0"), the node
 * by its host name; states that Ray does not know get the name of the nearest one.
 */
struct control;

char *api_details(struct control *c); // the caller's, xfree
