// Made by `npm run generate` from the OpenAPI document. Do not edit.
export interface paths {
    "/chat-messages": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Send a message
         * @description Send one message and get its answer: as a stream of events, as one JSON body, or later.
         */
        post: operations["sendChatMessage"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/chat-messages/{task_id}/stop": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Stop a turn
         * @description Stop a running turn: its partial answer is kept and its stream ends with `message_end`.
         *
         *     Also succeeds when there is nothing to stop: unknown, finished, or somebody else's.
         */
        post: operations["stopChatMessage"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/chat-messages/{task_id}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Follow a turn
         * @description The events of a turn after a cursor (from the start without one), with SSE `id:` lines.
         */
        get: operations["followTurn"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/conversations": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List conversations
         * @description A page of this user's conversations.
         */
        get: operations["listConversations"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/conversations/{conversation_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Delete a conversation
         * @description Delete a conversation of this user: its turns are stopped, the agent's session is closed later.
         */
        delete: operations["deleteConversation"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/conversations/{conversation_id}/name": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Name a conversation
         * @description Give a conversation a name, or have one made. It is never changed by the app again.
         */
        post: operations["renameConversation"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/messages": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List messages
         * @description The newest messages of a conversation, oldest first within the page.
         */
        get: operations["listMessages"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/messages/{message_id}/feedbacks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Rate an answer
         * @description Like or dislike an answer, or take that back. A later rating replaces the one before.
         */
        post: operations["rateMessage"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/messages/{message_id}/suggested": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Suggest questions
         * @description Questions that the user may ask after this answer. They are made when they are asked for first;
         *     empty when that takes too long (ask again), for an unfinished or failed turn, or when there are none.
         */
        get: operations["getSuggestedQuestions"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/conversations/{conversation_id}/variables": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List a conversation's variables
         * @description The variables of a conversation: there are none.
         */
        get: operations["listConversationVariables"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/conversations/{conversation_id}/variables/{variable_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Set a conversation's variable
         * @description Give a variable another value. There are none, so none is found.
         */
        put: operations["updateConversationVariable"];
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/app/feedbacks": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * List the ratings of all users
         * @description The ratings that users of this app gave, the newest first.
         */
        get: operations["listFeedbacks"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/files/upload": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Upload a file
         * @description Upload one file of one end user, to come with queries of theirs.
         *
         *     One that no message uses is deleted after a day.
         */
        post: operations["uploadFile"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/files/{file_id}/preview": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a file
         * @description The bytes of a file that this user uploaded, or that an agent made for them.
         */
        get: operations["previewFile"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/files/{file_id}/download": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a file without a key
         * @description The bytes of a file for whoever has its signed, expiring URL: agents, and pages that show it.
         */
        get: operations["downloadFile"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/form/human_input/{form_token}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Get a form
         * @description The form of a question that waits for its answer.
         */
        get: operations["getHumanInputForm"];
        put?: never;
        /**
         * Submit a form
         * @description Answer the question, once: the conversation goes on with a turn that tells the agent.
         *
         *     An unknown action, or a required input that is missing, leaves the form open.
         */
        post: operations["submitHumanInputForm"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/workflow/{workflow_run_id}/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Follow the answer of a question
         * @description The events of the turn that carries a question's answer; before there is one it waits, pinging.
         *
         *     Of a message that asks nothing these are the events of its own turn.
         */
        get: operations["followAnswer"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/info": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Describe the app
         * @description Name, description and mode of the app this key opens.
         */
        get: operations["getAppInfo"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/meta": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Describe the app's tools
         * @description Icons of the app's tools. The tools are the backend's, which names no icons.
         */
        get: operations["getAppMeta"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/site": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Describe the app's chat page
         * @description Title, icon, colours and legal texts for a page that shows this app.
         */
        get: operations["getAppSite"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/parameters": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Describe the app's features
         * @description The opening statement, the input form, and which features are on.
         */
        get: operations["getAppParameters"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/end-users/{end_user_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Describe an end user
         * @description Who this is to the client: an end user of this app, whoever asks with its key.
         */
        get: operations["getEndUser"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/audio-to-text": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Turn speech into text
         * @description Off in every app: see `speech_to_text` of `GET /parameters`.
         */
        post: operations["audioToText"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/text-to-audio": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Turn text into speech
         * @description Off in every app: see `text_to_speech` of `GET /parameters`.
         */
        post: operations["textToAudio"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/healthz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Alive
         * @description The process answers. Touches nothing else, so a database outage does not restart it.
         */
        get: operations["getHealth"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/readyz": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Ready
         * @description The database serves this process with a schema it can use, and the process is not draining.
         */
        get: operations["getReadiness"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * AppInfo
         * @description What an app says of itself.
         */
        AppInfo: {
            /** Name */
            name: string;
            /** Description */
            description: string;
            /** Tags */
            tags: string[];
            /**
             * Mode
             * @description Which events its streams have.
             * @enum {string}
             */
            mode: "chat" | "agent-chat" | "agent";
            /** Author Name */
            author_name: string;
        };
        /**
         * AppMeta
         * @description What is known of an app's tools.
         */
        AppMeta: {
            /** Tool Icons */
            tool_icons: {
                [key: string]: unknown;
            };
        };
        /**
         * AppParameters
         * @description What a front end needs to draw the app.
         */
        AppParameters: {
            /** Opening Statement */
            opening_statement: string;
            /** Suggested Questions */
            suggested_questions: string[];
            suggested_questions_after_answer: components["schemas"]["Toggle"];
            speech_to_text: components["schemas"]["Toggle"];
            text_to_speech: components["schemas"]["VoiceToggle"];
            retriever_resource: components["schemas"]["Toggle"];
            annotation_reply: components["schemas"]["Toggle"];
            more_like_this: components["schemas"]["Toggle"];
            sensitive_word_avoidance: components["schemas"]["Toggle"];
            /** User Input Form */
            user_input_form: {
                [key: string]: unknown;
            }[];
            file_upload: components["schemas"]["FileUpload"];
            system_parameters: components["schemas"]["SystemParameters"];
        };
        /**
         * AppSite
         * @description How a page that shows the app looks.
         */
        AppSite: {
            /** Title */
            title: string;
            /** Chat Color Theme */
            chat_color_theme: string;
            /** Chat Color Theme Inverted */
            chat_color_theme_inverted: boolean;
            /**
             * Icon Type
             * @enum {string}
             */
            icon_type: "emoji" | "image" | "link";
            /** Icon */
            icon: string;
            /** Icon Background */
            icon_background: string;
            /** Icon Url */
            icon_url: string | null;
            /** Description */
            description: string;
            /** Copyright */
            copyright: string;
            /** Privacy Policy */
            privacy_policy: string;
            /** Custom Disclaimer */
            custom_disclaimer: string;
            /** Input Placeholder */
            input_placeholder: string;
            /** Default Language */
            default_language: string;
            /** Show Workflow Steps */
            show_workflow_steps: boolean;
            /** Use Icon As Answer Icon */
            use_icon_as_answer_icon: boolean;
        };
        /**
         * BackgroundTurn
         * @description A turn that was begun and can be followed.
         */
        BackgroundTurn: {
            /** Task Id */
            task_id: string;
            /** Message Id */
            message_id: string;
            /** Conversation Id */
            conversation_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Status
             * @enum {string}
             */
            status: "running" | "completed" | "stopped" | "failed";
            /**
             * Events Url
             * @description Follows the turn without a key, for a limited time.
             */
            events_url: string;
        };
        /**
         * BusyBody
         * @description 409: `conversation_busy` names the turn that is running, `human_input_required` the open question.
         */
        BusyBody: {
            /**
             * Code
             * @description What went wrong, for programs.
             * @example invalid_param
             */
            code: string;
            /**
             * Message
             * @description What went wrong, for people.
             */
            message: string;
            /**
             * Status
             * @description The HTTP status.
             * @example 400
             */
            status: number;
            /**
             * Task Id
             * @description The running turn.
             */
            task_id?: string | null;
            /**
             * Events Url
             * @description Follows it without a key, for a limited time.
             */
            events_url?: string | null;
            /**
             * Message Id
             * @description The message that asks.
             */
            message_id?: string | null;
            /**
             * Form Token
             * @description Reads and submits the form of the open question.
             */
            form_token?: string | null;
        };
        /**
         * ChatMessage
         * @description A blocking answer.
         */
        ChatMessage: {
            /**
             * Event
             * @constant
             */
            event: "message";
            /** Task Id */
            task_id: string;
            /**
             * Id
             * @description The same as `message_id`.
             */
            id: string;
            /** Message Id */
            message_id: string;
            /** Conversation Id */
            conversation_id: string;
            /**
             * Mode
             * @description `chat` in every app mode: existing clients reject others.
             * @constant
             */
            mode: "chat";
            /** Answer */
            answer: string;
            metadata: components["schemas"]["Metadata"];
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
        };
        /**
         * ChatMessageBody
         * @description Body of POST /chat-messages.
         */
        ChatMessageBody: {
            /**
             * Query
             * @description What the user says.
             * @example What is 12 * 7?
             */
            query: string;
            /**
             * User
             * @description The client's own identifier of its end user; scopes everything.
             */
            user: string;
            /**
             * Inputs
             * @description Values of the app's input form.
             */
            inputs?: {
                [key: string]: unknown;
            };
            /**
             * Response Mode
             * @description `background` answers 202 at once with an `events_url` to follow.
             * @default blocking
             * @enum {string}
             */
            response_mode?: "streaming" | "blocking" | "background";
            /**
             * Conversation Id
             * Format: uuid
             * @description UUID of the conversation to go on with; empty or absent starts a new one.
             */
            conversation_id?: string | null;
            /**
             * Files
             * @description Files that come with the query.
             */
            files?: components["schemas"]["InputFileBody"][];
            /**
             * Auto Generate Name
             * @description Whether the app may name the conversation that this begins.
             * @default true
             */
            auto_generate_name?: boolean;
            /**
             * Trace Id
             * @description Passed on to the agent as `${trace_id}`. What is no id is ignored.
             */
            trace_id?: string | null;
        };
        /**
         * ConversationItem
         * @description A conversation as listed.
         */
        ConversationItem: {
            /** Id */
            id: string;
            /** Name */
            name: string;
            /** Inputs */
            inputs: {
                [key: string]: unknown;
            };
            /**
             * Status
             * @constant
             */
            status: "normal";
            /**
             * Introduction
             * @description The app's opening statement.
             */
            introduction: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Updated At
             * @description Unix time in seconds.
             */
            updated_at: number;
        };
        /**
         * ConversationPage
         * @description A page of conversations.
         */
        ConversationPage: {
            /** Limit */
            limit: number;
            /** Has More */
            has_more: boolean;
            /** Data */
            data: components["schemas"]["ConversationItem"][];
        };
        /**
         * DeleteConversationBody
         * @description Body of DELETE /conversations/{conversation_id}; `user` may be a query parameter instead.
         */
        DeleteConversationBody: {
            /** User */
            user?: string | null;
        };
        /**
         * EndUserItem
         * @description An end user of an app.
         */
        EndUserItem: {
            /** Id */
            id: string;
            /** Tenant Id */
            tenant_id: string;
            /** App Id */
            app_id: string;
            /**
             * Type
             * @constant
             */
            type: "service_api";
            /**
             * External User Id
             * @description The `user` under which the client knows them.
             */
            external_user_id: string;
            /**
             * Name
             * @description Always null: the gateway knows no names.
             */
            name: string | null;
            /**
             * Is Anonymous
             * @description Whether this is who requests without `user` are for.
             */
            is_anonymous: boolean;
            /**
             * Session Id
             * @description The same as `external_user_id`.
             */
            session_id: string;
            /**
             * Created At
             * Format: date-time
             */
            created_at: string;
            /**
             * Updated At
             * Format: date-time
             */
            updated_at: string;
        };
        /**
         * ErrorBody
         * @description Every non-2xx body.
         */
        ErrorBody: {
            /**
             * Code
             * @description What went wrong, for programs. One of `invalid_param` (400), `bad_request` (400), `app_unavailable` (400), `not_workflow_app` (400), `provider_not_initialize` (400), `provider_quota_exceeded` (400), `completion_request_error` (400), `model_currently_not_support` (400), `context_length_exceeded` (400), `output_length_exceeded` (400), `content_filtered` (400), `agent_run_limit_exceeded` (400), `no_file_uploaded` (400), `too_many_files` (400), `filename_not_exists_error` (400), `unauthorized` (401), `not_found` (404), `end_user_not_found` (404), `file_not_found` (404), `method_not_allowed` (405), `conversation_busy` (409), `human_input_required` (409), `human_input_form_submitted` (412), `human_input_form_expired` (412), `request_too_large` (413), `file_too_large` (413), `unsupported_file_type` (415), `range_not_satisfiable` (416), `idempotency_conflict` (409), `too_many_requests` (429), `rate_limit_error` (429), `internal_server_error` (500), `not_supported` (501), `turn_interrupted` (500), `backend_refused` (502), `answer_incomplete` (502), `output_invalid` (502), `provider_unavailable` (503), `service_unavailable` (503), `turn_timeout` (504), `provider_timeout` (504).
             * @example invalid_param
             */
            code: string;
            /**
             * Message
             * @description What went wrong, for people.
             */
            message: string;
            /**
             * Status
             * @description The HTTP status.
             * @example 400
             */
            status: number;
        };
        /**
         * FeedbackBody
         * @description Body of POST /messages/{message_id}/feedbacks.
         */
        FeedbackBody: {
            /**
             * Rating
             * @description Null takes the rating back.
             */
            rating?: ("like" | "dislike") | null;
            /**
             * Content
             * @description More about it, in the user's words.
             */
            content?: string | null;
            /**
             * User
             * @description The client's own identifier of its end user; scopes everything.
             */
            user: string;
        };
        /**
         * FeedbackItem
         * @description A feedback as listed.
         */
        FeedbackItem: {
            /** Id */
            id: string;
            /** App Id */
            app_id: string;
            /** Conversation Id */
            conversation_id: string;
            /** Message Id */
            message_id: string;
            /**
             * Rating
             * @enum {string}
             */
            rating: "like" | "dislike";
            /** Content */
            content: string | null;
            /**
             * From Source
             * @constant
             */
            from_source: "user";
            /** From End User Id */
            from_end_user_id: string;
            /**
             * From Account Id
             * @description Always null.
             */
            from_account_id: string | null;
            /**
             * Created At
             * Format: date-time
             */
            created_at: string;
            /**
             * Updated At
             * Format: date-time
             */
            updated_at: string;
        };
        /**
         * FeedbackPage
         * @description A page of feedbacks, the newest first.
         */
        FeedbackPage: {
            /** Data */
            data: components["schemas"]["FeedbackItem"][];
        };
        /**
         * FileUpload
         * @description Which files may come with a query.
         */
        FileUpload: {
            /** Enabled */
            enabled: boolean;
            /** Allowed File Types */
            allowed_file_types: ("image" | "document" | "audio" | "video" | "custom")[];
            /**
             * Allowed File Extensions
             * @description Without the dot.
             */
            allowed_file_extensions: string[];
            /** Allowed File Upload Methods */
            allowed_file_upload_methods: ("local_file" | "remote_url")[];
            /**
             * Number Limits
             * @description The most files of one message.
             */
            number_limits: number;
            image: components["schemas"]["ImageUpload"];
        };
        /**
         * FormActionItem
         * @description A button of a form.
         */
        FormActionItem: {
            /**
             * Id
             * @description Goes into `action` of the submission.
             */
            id: string;
            /** Title */
            title: string;
            /**
             * Button Style
             * @enum {string}
             */
            button_style: "primary" | "default" | "accent" | "ghost";
        };
        /**
         * FormDefinitionBody
         * @description What a front end needs to draw a form.
         */
        FormDefinitionBody: {
            /**
             * Form Content
             * @description The question in Markdown; `{{#$output.NAME#}}` marks where the input NAME belongs.
             * @example May I delete it?
             *
             *     Comment
             *
             *     {{#$output.comment#}}
             */
            form_content: string;
            /** Inputs */
            inputs: components["schemas"]["FormInputItem"][];
            /**
             * Resolved Default Values
             * @description First values of inputs, by name.
             */
            resolved_default_values: {
                [key: string]: unknown;
            };
            /** User Actions */
            user_actions: components["schemas"]["FormActionItem"][];
            /**
             * Expiration Time
             * @description Unix time in seconds.
             */
            expiration_time: number;
            /**
             * Node Title
             * @description What the question is about, in a few words.
             */
            node_title: string;
            /**
             * Urgency
             * @description As the agent said it; `normal` if it did not.
             */
            urgency: string;
            /**
             * Approval
             * @description What is to be approved, when the agent said so.
             */
            approval: {
                [key: string]: unknown;
            } | null;
        };
        /**
         * FormInputItem
         * @description An input of a form.
         */
        FormInputItem: {
            /**
             * Type
             * @description `paragraph`, `select`, or another kind that the agent named.
             */
            type: string;
            /**
             * Output Variable Name
             * @description Its name in `inputs` of the submission.
             */
            output_variable_name: string;
            /** Label */
            label: string;
            /** Required */
            required: boolean;
            /** Placeholder */
            placeholder: string;
            /**
             * Default
             * @description Its first value, as `{type, selector, value}`.
             */
            default: {
                [key: string]: unknown;
            } | null;
            /**
             * Options
             * @description Choices of a select, with labels.
             */
            options: components["schemas"]["SelectOption"][];
            /**
             * Option Source
             * @description The same choices without labels, as `{type, selector, value}`.
             */
            option_source: {
                [key: string]: unknown;
            } | null;
        };
        /**
         * FormSubmission
         * @description What a human answered.
         */
        FormSubmission: {
            /**
             * Node Id
             * @description The message that asks.
             */
            node_id: string;
            /**
             * Node Title
             * @description What the question is about, in a few words.
             */
            node_title: string;
            /**
             * Rendered Content
             * @description The form with its values, or the message that was the answer.
             */
            rendered_content: string;
            /**
             * Action Id
             * @description Empty when a message was the answer.
             */
            action_id: string;
            /**
             * Action Text
             * @description Empty when a message was the answer.
             */
            action_text: string;
            /**
             * Submitted Data
             * @description The values that were submitted, by name.
             */
            submitted_data: {
                [key: string]: unknown;
            };
        };
        /**
         * FormSubmitBody
         * @description Body of POST /form/human_input/{form_token}.
         */
        FormSubmitBody: {
            /**
             * Inputs
             * @description Values by name of the input.
             */
            inputs?: {
                [key: string]: unknown;
            };
            /**
             * Action
             * @description Id of the action, the button that was used.
             * @example approve
             */
            action: string;
            /**
             * User
             * @description The client's own identifier of its end user; scopes everything.
             */
            user: string;
        };
        /**
         * FormSubmitted
         * @description The turn that carries the answer.
         */
        FormSubmitted: {
            /** Task Id */
            task_id: string;
            /** Message Id */
            message_id: string;
            /** Conversation Id */
            conversation_id: string;
            /**
             * Events Url
             * @description Follows the turn without a key, for a limited time.
             */
            events_url: string;
        };
        /**
         * Health
         * @description Answer of the probes.
         */
        Health: {
            /**
             * Status
             * @constant
             */
            status: "ok";
        };
        /**
         * HumanInputContent
         * @description A question among the `extra_contents` of the message that asks it.
         */
        HumanInputContent: {
            /**
             * Type
             * @constant
             */
            type: "human_input";
            /**
             * Workflow Run Id
             * @description The message that asks.
             */
            workflow_run_id: string;
            /**
             * State
             * @enum {string}
             */
            state: "open" | "submitted" | "timeout" | "cancelled";
            /** Submitted */
            submitted: boolean;
            form_definition: components["schemas"]["HumanInputForm"];
            form_submission_data: components["schemas"]["FormSubmission"] | null;
            /**
             * Form Submission Values
             * @description The values that were submitted, by name.
             */
            form_submission_values: {
                [key: string]: unknown;
            };
        };
        /**
         * HumanInputForm
         * @description The form of a question.
         */
        HumanInputForm: {
            /** Form Id */
            form_id: string;
            /**
             * Form Token
             * @description Reads and submits the form: GET and POST /form/human_input/{token}.
             */
            form_token: string;
            /**
             * Node Id
             * @description The message that asks.
             */
            node_id: string;
            /**
             * Node Title
             * @description What the question is about, in a few words.
             */
            node_title: string;
            /**
             * Form Content
             * @description The question in Markdown; `{{#$output.NAME#}}` marks where the input NAME belongs.
             * @example May I delete it?
             *
             *     Comment
             *
             *     {{#$output.comment#}}
             */
            form_content: string;
            /** Inputs */
            inputs: components["schemas"]["FormInputItem"][];
            /** Actions */
            actions: components["schemas"]["FormActionItem"][];
            /** Display In Ui */
            display_in_ui: boolean;
            /**
             * Resolved Default Values
             * @description First values of inputs, by name.
             */
            resolved_default_values: {
                [key: string]: unknown;
            };
            /**
             * Expiration Time
             * @description Unix time in seconds.
             */
            expiration_time: number;
            /**
             * Urgency
             * @description As the agent said it; `normal` if it did not.
             */
            urgency: string;
            /**
             * Approval
             * @description What is to be approved, when the agent said so.
             */
            approval: {
                [key: string]: unknown;
            } | null;
            /**
             * Approval Channels
             * @description Always empty: a form is answered in the client.
             */
            approval_channels: string[];
        };
        /**
         * ImageUpload
         * @description The same of images alone, for older clients.
         */
        ImageUpload: {
            /** Enabled */
            enabled: boolean;
            /** Number Limits */
            number_limits: number;
            /** Transfer Methods */
            transfer_methods: ("local_file" | "remote_url")[];
        };
        /**
         * InputFileBody
         * @description A file that comes with a query.
         */
        InputFileBody: {
            /**
             * Type
             * @enum {string}
             */
            type: "image" | "document" | "audio" | "video" | "custom";
            /**
             * Transfer Method
             * @enum {string}
             */
            transfer_method: "remote_url" | "local_file";
            /**
             * Url
             * @description Where the file is, with `remote_url`: http or https. It is passed on, never fetched. The name `remote_url` is taken, too.
             */
            url?: string | null;
            /**
             * Upload File Id
             * @description Which uploaded file it is, with `local_file`.
             */
            upload_file_id?: string | null;
        };
        /**
         * MessageFileItem
         * @description A file of a message: one that came with the query, or one that the agent made.
         */
        MessageFileItem: {
            /**
             * Id
             * @description The file's id; of a remote file, one of its own.
             */
            id: string;
            /** Filename */
            filename: string;
            /**
             * Type
             * @enum {string}
             */
            type: "image" | "document" | "audio" | "video" | "custom";
            /**
             * Url
             * @description A URL that needs no key, for a limited time; of a remote file, its own.
             */
            url: string;
            /**
             * Mime Type
             * @description Empty when it is not known.
             */
            mime_type: string;
            /**
             * Size
             * @description Bytes; 0 when it is not known.
             */
            size: number;
            /**
             * Transfer Method
             * @enum {string}
             */
            transfer_method: "local_file" | "remote_url" | "tool_file";
            /**
             * Belongs To
             * @enum {string}
             */
            belongs_to: "user" | "assistant";
            /**
             * Upload File Id
             * @description Null for a remote file.
             */
            upload_file_id: string | null;
            /**
             * Reference
             * @description Always null.
             */
            reference: string | null;
        };
        /**
         * MessageItem
         * @description A message as listed.
         */
        MessageItem: {
            /** Id */
            id: string;
            /** Conversation Id */
            conversation_id: string;
            /** Parent Message Id */
            parent_message_id: string | null;
            /** Inputs */
            inputs: {
                [key: string]: unknown;
            };
            /** Query */
            query: string;
            /** Answer */
            answer: string;
            /**
             * Status
             * @description `error` when its turn failed.
             * @enum {string}
             */
            status: "normal" | "error";
            /**
             * Error
             * @description Why its turn failed.
             */
            error: string | null;
            /** Message Files */
            message_files: components["schemas"]["MessageFileItem"][];
            feedback: components["schemas"]["MessageRating"] | null;
            /** Retriever Resources */
            retriever_resources: {
                [key: string]: unknown;
            }[];
            /** Agent Thoughts */
            agent_thoughts: components["schemas"]["ThoughtItem"][];
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Extra Contents
             * @description The question that it asks a human.
             */
            extra_contents: components["schemas"]["HumanInputContent"][];
            /** Message Tokens */
            message_tokens: number;
            /** Answer Tokens */
            answer_tokens: number;
            /** Total Tokens */
            total_tokens: number;
            /**
             * Provider Response Latency
             * @description Seconds.
             */
            provider_response_latency: number;
            /**
             * Total Price
             * @description A decimal number.
             */
            total_price: string;
            /** Currency */
            currency: string;
            /** @description As in the `message_end` of its turn. */
            metadata: components["schemas"]["Metadata"];
            /**
             * Task Id
             * @description Its turn, while that runs or waits; null when it has ended.
             */
            task_id: string | null;
            /**
             * Events Url
             * @description Follows its turn without a key, for a limited time; null when that has ended.
             */
            events_url: string | null;
        };
        /**
         * MessagePage
         * @description A page of messages, oldest first.
         */
        MessagePage: {
            /** Limit */
            limit: number;
            /** Has More */
            has_more: boolean;
            /** Data */
            data: components["schemas"]["MessageItem"][];
        };
        /**
         * MessageRating
         * @description What its user thought of an answer.
         */
        MessageRating: {
            /**
             * Rating
             * @enum {string}
             */
            rating: "like" | "dislike";
        };
        /**
         * Metadata
         * @description What is known of an answer besides its text.
         */
        Metadata: {
            usage: components["schemas"]["UsageBody"];
            /** Retriever Resources */
            retriever_resources: {
                [key: string]: unknown;
            }[];
            /**
             * Finish Reason
             * @description Why the model stopped: `stop`, `length` (its longest answer), `content_filter`, `tool_call`, `error`; null when the backend does not say.
             */
            finish_reason: string | null;
        };
        /**
         * RenameConversationBody
         * @description Body of POST /conversations/{conversation_id}/name: a name, or the wish for one.
         */
        RenameConversationBody: {
            /**
             * User
             * @description The client's own identifier of its end user; scopes everything.
             */
            user: string;
            /**
             * Name
             * @description The new name.
             * @example Travel plans
             */
            name?: string | null;
            /**
             * Auto Generate
             * @description Make a name of how the conversation began; wins over `name`.
             */
            auto_generate?: boolean | null;
        };
        /**
         * SelectOption
         * @description A choice of a select.
         */
        SelectOption: {
            /** Value */
            value: string;
            /** Label */
            label: string;
        };
        /**
         * StopBody
         * @description Body of POST /chat-messages/{task_id}/stop.
         */
        StopBody: {
            /**
             * User
             * @description The client's own identifier of its end user; scopes everything.
             */
            user: string;
        };
        /**
         * Success
         * @description The answer of what has nothing else to say.
         */
        Success: {
            /**
             * Result
             * @constant
             */
            result: "success";
        };
        /**
         * SuggestedQuestionList
         * @description Questions that the user may ask next.
         */
        SuggestedQuestionList: {
            /**
             * Result
             * @constant
             */
            result: "success";
            /**
             * Data
             * @description At most 5; empty when there are none (yet).
             */
            data: string[];
        };
        /**
         * SystemParameters
         * @description Size limits in MB.
         */
        SystemParameters: {
            /** File Size Limit */
            file_size_limit: number;
            /** Image File Size Limit */
            image_file_size_limit: number;
            /** Audio File Size Limit */
            audio_file_size_limit: number;
            /** Video File Size Limit */
            video_file_size_limit: number;
            /** Workflow File Upload Limit */
            workflow_file_upload_limit: number;
        };
        /**
         * ThoughtItem
         * @description A step of a message as listed.
         */
        ThoughtItem: {
            /** Id */
            id: string;
            /** Chain Id */
            chain_id: string | null;
            /** Message Id */
            message_id: string;
            /**
             * Position
             * @description 1, 2, 3 … in the order the steps were opened.
             */
            position: number;
            /**
             * Thought
             * @description What the agent thought; empty in a tool step.
             */
            thought: string;
            /**
             * Tool
             * @description The tool of a tool step; else empty.
             */
            tool: string;
            /** Tool Labels */
            tool_labels: {
                [key: string]: unknown;
            };
            /**
             * Tool Input
             * @description The arguments of the tool as JSON text.
             */
            tool_input: string;
            /**
             * Observation
             * @description What the tool returned, as text; empty before it did.
             */
            observation: string;
            /** Files */
            files: string[];
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
        };
        /**
         * Toggle
         * @description A feature that is on or off.
         */
        Toggle: {
            /** Enabled */
            enabled: boolean;
        };
        /**
         * Transcript
         * @description What was said.
         */
        Transcript: {
            /** Text */
            text: string;
        };
        /**
         * UploadedFile
         * @description A file that was uploaded and can come with a query.
         */
        UploadedFile: {
            /**
             * Id
             * @description Send it as `upload_file_id`.
             */
            id: string;
            /**
             * Name
             * @description The file's name, without what is not safe to show.
             */
            name: string;
            /**
             * Size
             * @description Bytes.
             */
            size: number;
            /**
             * Extension
             * @description Lower case, without the dot; may be empty.
             */
            extension: string;
            /**
             * Mime Type
             * @description By the extension, whatever the client said.
             */
            mime_type: string;
            /**
             * Created By
             * @description Id of the end user.
             */
            created_by: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Preview Url
             * @description Always null: use GET /files/{file_id}/preview.
             */
            preview_url: string | null;
            /**
             * Source Url
             * @description A URL of the file that needs no key, for a limited time.
             */
            source_url: string;
            /**
             * Original Url
             * @description Always null.
             */
            original_url: string | null;
            /**
             * User Id
             * @description Always null.
             */
            user_id: string | null;
            /**
             * Tenant Id
             * @description Always null.
             */
            tenant_id: string | null;
            /**
             * Conversation Id
             * @description Always null.
             */
            conversation_id: string | null;
            /**
             * File Key
             * @description Always null.
             */
            file_key: string | null;
            /**
             * Reference
             * @description Always null.
             */
            reference: string | null;
        };
        /**
         * UsageBody
         * @description Tokens, prices (decimal strings) and times (seconds) of a message; zeros when they are not known.
         */
        UsageBody: {
            /** Prompt Tokens */
            prompt_tokens: number;
            /** Prompt Unit Price */
            prompt_unit_price: string;
            /** Prompt Price Unit */
            prompt_price_unit: string;
            /** Prompt Price */
            prompt_price: string;
            /** Completion Tokens */
            completion_tokens: number;
            /** Completion Unit Price */
            completion_unit_price: string;
            /** Completion Price Unit */
            completion_price_unit: string;
            /** Completion Price */
            completion_price: string;
            /** Total Tokens */
            total_tokens: number;
            /** Total Price */
            total_price: string;
            /** Currency */
            currency: string;
            /** Latency */
            latency: number;
            /** Time To First Token */
            time_to_first_token: number;
            /** Time To Generate */
            time_to_generate: number;
        };
        /**
         * VariableBody
         * @description Body of PUT /conversations/{conversation_id}/variables/{variable_id}.
         */
        VariableBody: {
            /**
             * Value
             * @description The new value: any JSON.
             */
            value: unknown;
            /**
             * User
             * @description The client's own identifier of its end user; scopes everything.
             */
            user: string;
        };
        /**
         * VariableItem
         * @description A variable of a conversation.
         */
        VariableItem: {
            /** Id */
            id: string;
            /** Name */
            name: string;
            /** Value Type */
            value_type: string;
            /** Value */
            value: string;
            /** Description */
            description: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Updated At
             * @description Unix time in seconds.
             */
            updated_at: number;
        };
        /**
         * VariablePage
         * @description A page of variables.
         */
        VariablePage: {
            /** Limit */
            limit: number;
            /** Has More */
            has_more: boolean;
            /** Data */
            data: components["schemas"]["VariableItem"][];
        };
        /**
         * VoiceToggle
         * @description Text to speech.
         */
        VoiceToggle: {
            /** Enabled */
            enabled: boolean;
            /** Voice */
            voice: string;
            /** Language */
            language: string;
            /** Autoplay */
            autoPlay: string;
        };
        /**
         * AgentMessageEvent
         * @description A piece of the answer in the modes `agent-chat` and `agent`.
         */
        AgentMessageEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "agent_message";
            /**
             * Id
             * @description The same as `message_id`.
             */
            id: string;
            /**
             * Answer
             * @description Text that follows what was sent before.
             */
            answer: string;
        };
        /**
         * AgentThoughtEvent
         * @description A reasoning or tool step was opened, grew or got its result; always the whole step.
         */
        AgentThoughtEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "agent_thought";
            /**
             * Id
             * @description The step's own id: a later event with it replaces this one.
             */
            id: string;
            /**
             * Position
             * @description 1, 2, 3 … in the order the steps were opened.
             */
            position: number;
            /**
             * Thought
             * @description What the agent thought; empty in a tool step.
             */
            thought: string;
            /**
             * Tool
             * @description The tool of a tool step; else empty.
             */
            tool: string;
            /** Tool Labels */
            tool_labels: {
                [key: string]: unknown;
            };
            /**
             * Tool Input
             * @description The arguments of the tool as JSON text.
             */
            tool_input: string;
            /**
             * Observation
             * @description What the tool returned, as text; empty before it did.
             */
            observation: string;
            /** Message Files */
            message_files: string[];
        };
        /**
         * ErrorEvent
         * @description The turn failed; ends the stream. What was streamed before is kept.
         */
        ErrorEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "error";
            /**
             * Status
             * @description The HTTP status this would have been before the stream began.
             */
            status: number;
            /**
             * Code
             * @description What went wrong, for programs: as in ErrorBody.
             */
            code: string;
            /**
             * Message
             * @description What went wrong, for people.
             */
            message: string;
        };
        /**
         * FormTimeout
         * @description A form that nobody submitted in time.
         */
        FormTimeout: {
            /**
             * Node Id
             * @description The message that asks.
             */
            node_id: string;
            /**
             * Node Title
             * @description What the question is about, in a few words.
             */
            node_title: string;
            /**
             * Expiration Time
             * @description Unix time in seconds.
             */
            expiration_time: number;
        };
        /**
         * HumanInputFormFilledEvent
         * @description First event of the turn that carries the human's answer.
         */
        HumanInputFormFilledEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "human_input_form_filled";
            /**
             * Workflow Run Id
             * @description The message that asks, in whichever turn this is told.
             */
            workflow_run_id: string;
            data: components["schemas"]["FormSubmission"];
        };
        /**
         * HumanInputFormTimeoutEvent
         * @description First event of the turn that tells the agent that nobody answered in time.
         */
        HumanInputFormTimeoutEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "human_input_form_timeout";
            /**
             * Workflow Run Id
             * @description The message that asks, in whichever turn this is told.
             */
            workflow_run_id: string;
            data: components["schemas"]["FormTimeout"];
        };
        /**
         * HumanInputRequiredEvent
         * @description The agent asks a human. The answer is the question's text, and `message_end` follows.
         */
        HumanInputRequiredEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "human_input_required";
            /**
             * Workflow Run Id
             * @description The message that asks, in whichever turn this is told.
             */
            workflow_run_id: string;
            data: components["schemas"]["HumanInputForm"];
        };
        /**
         * MessageEndEvent
         * @description The answer is complete and stored; ends the stream.
         */
        MessageEndEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "message_end";
            /**
             * Id
             * @description The same as `message_id`.
             */
            id: string;
            metadata: components["schemas"]["Metadata"];
            /**
             * Files
             * @description What the agent made.
             */
            files: components["schemas"]["MessageFileItem"][];
        };
        /**
         * MessageEvent
         * @description A piece of the answer; in mode `agent` the whole answer again, as its last event but one.
         */
        MessageEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "message";
            /**
             * Id
             * @description The same as `message_id`.
             */
            id: string;
            /**
             * Answer
             * @description Text that follows what was sent before.
             */
            answer: string;
            /**
             * From Variable Selector
             * @description Always null.
             */
            from_variable_selector: string[] | null;
        };
        /**
         * MessageFileEvent
         * @description The agent made a file; it is stored.
         */
        MessageFileEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "message_file";
            /**
             * Id
             * @description The file's id.
             */
            id: string;
            /**
             * Type
             * @enum {string}
             */
            type: "image" | "document" | "audio" | "video" | "custom";
            /**
             * Belongs To
             * @constant
             */
            belongs_to: "assistant";
            /**
             * Url
             * @description A URL of the file that needs no key, for a limited time.
             */
            url: string;
        };
        /**
         * MessageReplaceEvent
         * @description The answer so far is replaced by this text; later pieces append to it.
         */
        MessageReplaceEvent: {
            /**
             * Conversation Id
             * @description The same in all events of a stream.
             */
            conversation_id: string;
            /**
             * Message Id
             * @description The same in all events of a stream.
             */
            message_id: string;
            /**
             * Created At
             * @description Unix time in seconds.
             */
            created_at: number;
            /**
             * Task Id
             * @description The turn, to stop it or to follow it.
             */
            task_id: string;
            /**
             * Event Id
             * @description Position of the event in its turn: grows, may skip. The cursor to resume after.
             */
            event_id: number;
            /**
             * @description discriminator enum property added by openapi-typescript
             * @enum {string}
             */
            event: "message_replace";
            /**
             * Answer
             * @description The whole answer so far.
             */
            answer: string;
            /**
             * Reason
             * @description Why it was replaced, for people.
             */
            reason: string;
        };
        /**
         * ChatStreamEvent
         * @description The JSON of one `data:` line of a stream; `event` tells which. Lines `event: ping` carry no data.
         */
        ChatStreamEvent: components["schemas"]["MessageEvent"] | components["schemas"]["AgentMessageEvent"] | components["schemas"]["AgentThoughtEvent"] | components["schemas"]["MessageReplaceEvent"] | components["schemas"]["HumanInputRequiredEvent"] | components["schemas"]["HumanInputFormFilledEvent"] | components["schemas"]["HumanInputFormTimeoutEvent"] | components["schemas"]["MessageFileEvent"] | components["schemas"]["MessageEndEvent"] | components["schemas"]["ErrorEvent"];
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    sendChatMessage: {
        parameters: {
            query?: {
                /** @description App mode of this one stream, instead of the app's own. */
                mode?: "chat" | "agent-chat" | "agent";
                /** @description Send SSE `id:` lines on this stream, too. */
                ids?: boolean;
            };
            header?: {
                /** @description The same key and body never make a second turn. */
                "Idempotency-Key"?: string;
                /** @description `event_id` of the last event that was seen. */
                "Last-Event-ID"?: string;
                /** @description Passed on to the agent as `${trace_id}`; wins over `trace_id`. */
                "X-Trace-Id"?: string;
                /** @description Passed on to the agent as `${trace_session_id}`. */
                "X-Trace-Session-Id"?: string;
            };
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ChatMessageBody"];
            };
        };
        responses: {
            /** @description The answer; with `response_mode: streaming` its events. */
            200: {
                headers: {
                    /** @description The turn of a stream, before its first event. */
                    "X-Task-Id"?: string;
                    /** @description Follows the turn of a stream without a key, for a limited time. */
                    "X-Turn-Events-URL"?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ChatMessage"];
                    "text/event-stream": components["schemas"]["ChatStreamEvent"];
                };
            };
            /** @description Begun, with `response_mode: background`. */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["BackgroundTurn"];
                };
            };
            /** @description With Last-Event-ID: the turn has ended and nothing is left. */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description `conversation_busy`, `human_input_required` or `idempotency_conflict`. */
            409: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["BusyBody"];
                };
            };
            /** @description The form was submitted before, or has expired. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description A limit of the app, or the model provider's rate limit. */
            429: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The turn failed. */
            500: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The backend refused the turn, or its provider broke it off. */
            502: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The turn took too long. */
            504: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    stopChatMessage: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description `task_id` of the turn. */
                task_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StopBody"];
            };
        };
        responses: {
            /** @description Done, or there was nothing to stop. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Success"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    followTurn: {
        parameters: {
            query?: {
                /** @description Required with an API key; a ticket knows it. */
                user?: string;
                /** @description `event_id` after which to begin; wins over Last-Event-ID. */
                after?: number;
                /** @description App mode of this one stream, instead of the app's own. */
                mode?: "chat" | "agent-chat" | "agent";
                /** @description A signed, expiring ticket for one turn or one file, as in the URLs that the service gives out: instead of an API key. */
                ticket?: string;
            };
            header?: {
                /** @description `event_id` of the last event that was seen. */
                "Last-Event-ID"?: string;
            };
            path: {
                /** @description `task_id` of the turn. */
                task_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The events after the cursor, then live. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": components["schemas"]["ChatStreamEvent"];
                };
            };
            /** @description The turn has ended and nothing is left; EventSource stops. */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    listConversations: {
        parameters: {
            query?: {
                /** @description The client's own identifier of its end user. */
                user?: string;
                /** @description Last id of the page before. */
                last_id?: string;
                /** @description Most items of a page. */
                limit?: number;
                /** @description The field to sort by; with a minus, newest first. */
                sort_by?: "created_at" | "-created_at" | "updated_at" | "-updated_at";
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of conversations. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ConversationPage"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    deleteConversation: {
        parameters: {
            query?: {
                /** @description Instead of `user` in the body. */
                user?: string;
            };
            header?: never;
            path: {
                /** @description UUID of the conversation. */
                conversation_id: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["DeleteConversationBody"];
            };
        };
        responses: {
            /** @description It is gone. */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    renameConversation: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description UUID of the conversation. */
                conversation_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RenameConversationBody"];
            };
        };
        responses: {
            /** @description The conversation. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ConversationItem"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    listMessages: {
        parameters: {
            query: {
                /** @description UUID of the conversation. */
                conversation_id: string;
                /** @description The client's own identifier of its end user. */
                user?: string;
                /** @description First id of the page before: older ones. */
                first_id?: string;
                /** @description Most items of a page. */
                limit?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of messages. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["MessagePage"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    rateMessage: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description UUID of the message. */
                message_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FeedbackBody"];
            };
        };
        responses: {
            /** @description Done. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Success"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getSuggestedQuestions: {
        parameters: {
            query?: {
                /** @description The client's own identifier of its end user. */
                user?: string;
            };
            header?: never;
            path: {
                /** @description UUID of the message. */
                message_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The questions. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SuggestedQuestionList"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    listConversationVariables: {
        parameters: {
            query?: {
                /** @description The client's own identifier of its end user. */
                user?: string;
                /** @description Last id of the page before. */
                last_id?: string;
                /** @description Most items of a page. */
                limit?: number;
                /** @description Only the variable of this name. */
                variable_name?: string;
            };
            header?: never;
            path: {
                /** @description UUID of the conversation. */
                conversation_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of variables; always empty. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["VariablePage"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    updateConversationVariable: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description UUID of the conversation. */
                conversation_id: string;
                /** @description UUID of the variable. */
                variable_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["VariableBody"];
            };
        };
        responses: {
            /** @description The variable. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["VariableItem"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    listFeedbacks: {
        parameters: {
            query?: {
                /** @description 1 is the newest. */
                page?: number;
                /** @description Most items of a page. */
                limit?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description A page of ratings. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FeedbackPage"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    uploadFile: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "multipart/form-data": {
                    /**
                     * Format: binary
                     * @description The file.
                     */
                    file: Blob;
                    /** @description The client's own identifier of its end user. */
                    user: string;
                };
            };
        };
        responses: {
            /** @description The file. */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["UploadedFile"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The app takes no files of this kind. */
            415: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    previewFile: {
        parameters: {
            query?: {
                /** @description The client's own identifier of its end user. */
                user?: string;
                /** @description Have browsers save the file, never show it. */
                as_attachment?: boolean;
            };
            header?: {
                /** @description One range of bytes, `bytes=0-99`; others are ignored. */
                Range?: string;
                /** @description The `ETag` of the file for which the range is meant. */
                "If-Range"?: string;
                /** @description The `ETag` of the file that the client has. */
                "If-None-Match"?: string;
            };
            path: {
                /** @description `id` of the file. */
                file_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The bytes of the file. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "*/*": Blob;
                };
            };
            /** @description The asked range of its bytes. */
            206: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "*/*": Blob;
                };
            };
            /** @description The file that the client has. */
            304: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The file is shorter than the asked range. */
            416: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    downloadFile: {
        parameters: {
            query?: {
                /** @description Have browsers save the file, never show it. */
                as_attachment?: boolean;
                /** @description A signed, expiring ticket for one turn or one file, as in the URLs that the service gives out: instead of an API key. */
                ticket?: string;
            };
            header?: {
                /** @description One range of bytes, `bytes=0-99`; others are ignored. */
                Range?: string;
                /** @description The `ETag` of the file for which the range is meant. */
                "If-Range"?: string;
                /** @description The `ETag` of the file that the client has. */
                "If-None-Match"?: string;
            };
            path: {
                /** @description `id` of the file. */
                file_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The bytes of the file. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "*/*": Blob;
                };
            };
            /** @description The asked range of its bytes. */
            206: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "*/*": Blob;
                };
            };
            /** @description The file that the client has. */
            304: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The file is shorter than the asked range. */
            416: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getHumanInputForm: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description `form_token` of the question. */
                form_token: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description What a front end needs to draw the form. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FormDefinitionBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The form was submitted before, or has expired. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    submitHumanInputForm: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description `form_token` of the question. */
                form_token: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FormSubmitBody"];
            };
        };
        responses: {
            /** @description The answer is stored, and its turn has begun. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["FormSubmitted"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The form was submitted before, or has expired. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    followAnswer: {
        parameters: {
            query?: {
                /** @description The client's own identifier of its end user. */
                user?: string;
                /** @description Accepted for existing clients: the stream always begins at the start. */
                include_state_snapshot?: boolean;
                /** @description Accepted for existing clients: a further question ends the stream. */
                continue_on_pause?: boolean;
            };
            header?: never;
            path: {
                /** @description `message_id` of the question. */
                workflow_run_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The events of the turn that carries the answer. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/event-stream": components["schemas"]["ChatStreamEvent"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The form was submitted before, or has expired. */
            412: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getAppInfo: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The app. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AppInfo"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getAppMeta: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The icons of its tools. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AppMeta"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getAppSite: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The page. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AppSite"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getAppParameters: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The app's features. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AppParameters"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getEndUser: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description UUID of the end user. */
                end_user_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description The end user. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EndUserItem"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Unknown to this app and user. */
            404: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    audioToText: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "multipart/form-data": {
                    /** @description The recording. */
                    file: Blob;
                    /** @description The client's own identifier of its end user. */
                    user: string;
                };
            };
        };
        responses: {
            /** @description The text. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Transcript"];
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    textToAudio: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": {
                    /**
                     * Message Id
                     * @description UUID of the message.
                     */
                    message_id?: string | null;
                    /**
                     * Text
                     * @description What to say, without a message.
                     */
                    text?: string | null;
                    /**
                     * User
                     * @description The client's own identifier of its end user; scopes everything.
                     */
                    user: string;
                };
            };
        };
        responses: {
            /** @description The speech. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "audio/mpeg": string;
                };
            };
            /** @description Invalid request, or the provider rejected it. */
            400: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description No valid API key or ticket. */
            401: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description The body is too large. */
            413: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getHealth: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Alive. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
    getReadiness: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description Ready for traffic. */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Health"];
                };
            };
            /** @description Draining, full, or the backend, database or provider is away. */
            503: {
                headers: {
                    /** @description Seconds to wait before the next try. */
                    "Retry-After"?: number;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
            /** @description Any other error. */
            default: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["ErrorBody"];
                };
            };
        };
    };
}
