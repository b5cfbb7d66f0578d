//! The tables of Daisi that the service publishes.

use std::borrow::Cow;

use super::column::{Bool, Cell, Date, Fit, Integer, Json, Scalar, Text, Timestamp};
use super::error::Poison;
use super::json::Read;
use super::layout::Layout;
use super::scan::Scanner;
use super::table::{IdColumn, Row, RowRead, Table, read_row, table, typed_fit};

table! {
    /// WhatsApp messages; partitioned by day, with the primary key (id, message_date).
    Messages = "messages", row MessageRow<'a>,
    key Message, primary ["id", "message_date"], routing [Company, Agent, Chat],
    ids [company_id = Company, agent_id = Agent, chat_id = Chat, message_id = Message],
    columns {
        id: Scalar<'a> = "id",
        message_id: Text<'a> = "message_id",
        chat_id: Text<'a> = "chat_id",
        agent_id: Text<'a> = "agent_id",
        company_id: Text<'a> = "company_id",
        from: Text<'a> = "from",
        to: Text<'a> = "to",
        from_user: Text<'a> = "from_user",
        to_user: Text<'a> = "to_user",
        from_phone: Text<'a> = "from_phone",
        to_phone: Text<'a> = "to_phone",
        jid: Text<'a> = "jid",
        flow: Text<'a> = "flow",
        kind: Text<'a> = "type",
        message_type: Text<'a> = "message_type",
        message_text: Text<'a> = "message_text",
        message_url: Text<'a> = "message_url",
        message_obj: Json<'a> = "message_obj",
        edited_message_obj: Json<'a> = "edited_message_obj",
        key: Json<'a> = "key",
        status: Text<'a> = "status",
        is_deleted: Bool = "is_deleted",
        message_timestamp: Integer<'a> = "message_timestamp",
        message_date: Date<'a> = "message_date",
        created_at: Timestamp<'a> = "created_at",
        updated_at: Timestamp<'a> = "updated_at",
        last_metadata: Json<'a> = "last_metadata",
    }
}

table! {
    /// Conversations of an agent.
    Chats = "chats", row ChatRow<'a>,
    key Chat, primary ["id"], routing [Company, Agent],
    ids [company_id = Company, agent_id = Agent, chat_id = Chat],
    columns {
        id: Scalar<'a> = "id",
        chat_id: Text<'a> = "chat_id",
        agent_id: Text<'a> = "agent_id",
        company_id: Text<'a> = "company_id",
        jid: Text<'a> = "jid",
        custom_name: Text<'a> = "custom_name",
        push_name: Text<'a> = "push_name",
        is_group: Bool = "is_group",
        group_name: Text<'a> = "group_name",
        unread_count: Integer<'a> = "unread_count",
        assigned_to: Text<'a> = "assigned_to",
        last_message: Json<'a> = "last_message",
        conversation_timestamp: Integer<'a> = "conversation_timestamp",
        not_spam: Bool = "not_spam",
        phone_number: Text<'a> = "phone_number",
        last_metadata: Json<'a> = "last_metadata",
        created_at: Timestamp<'a> = "created_at",
        updated_at: Timestamp<'a> = "updated_at",
    }
}

table! {
    /// Agents: the WhatsApp accounts of a company.
    Agents = "agents", row AgentRow<'a>,
    key Agent, primary ["id"], routing [Company, Agent],
    ids [company_id = Company, agent_id = Agent],
    columns {
        id: Integer<'a> = "id",
        agent_id: Text<'a> = "agent_id",
        company_id: Text<'a> = "company_id",
        qr_code: Text<'a> = "qr_code",
        status: Text<'a> = "status",
        agent_name: Text<'a> = "agent_name",
        host_name: Text<'a> = "host_name",
        version: Text<'a> = "version",
        created_at: Timestamp<'a> = "created_at",
        updated_at: Timestamp<'a> = "updated_at",
        last_metadata: Json<'a> = "last_metadata",
    }
}
